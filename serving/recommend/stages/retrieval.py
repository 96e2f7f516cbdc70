"""Stage 1 of a request: the steps of `registry.scoring`, with pauses between them in which others get their turn."""

from contextlib import nullcontext

import numpy as np

from feature_repo.population.population import Population
from feature_repo.transforms import Terms
from infra.metrics import serving_metrics
from registry.models.ranker import ListPolicy
from registry.release import Release
from registry.scoring.two_stages import CandidateStep, Found, candidate_steps
from serving.recommend.answer_run import Run, breathe
from serving.recommend.pool import KnownRequester
from serving.recommend.stages.safety import asked_at_once


async def found_for(
    run: Run,
    release: Release,
    population: Population,
    requester: KnownRequester,
    terms: Terms,
    *,
    policy: ListPolicy,
    n: int,
    rng: np.random.Generator,
) -> Found:
    """Return at most `n` people who may be shown."""
    searching = serving_metrics().inference_seconds.labels("index")
    steps = candidate_steps(
        release,
        population,
        requester,
        terms,
        policy=policy,
        n=n,
        at=run.at,
        rng=rng,
        at_least=asked_at_once(run.request.limit),
        late=run.newcomers.get(release.mark),
        may_widen=lambda: run.remaining_s() > 0,
    )
    step = next(steps)
    while True:
        try:
            with searching.time() if step is CandidateStep.INDEX else nullcontext():
                step = next(steps)
        except StopIteration as end:
            found: Found = end.value
            return found
        await breathe()
