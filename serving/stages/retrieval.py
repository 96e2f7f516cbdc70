"""Stage 1 of a request: the sources of `registry.scoring`, with pauses between them in which others get their turn."""

from dataclasses import dataclass

import numpy as np

from feature_repo.population import Population
from feature_repo.transforms import Terms
from infra.metrics import serving_metrics
from registry.neighbours import Taste
from registry.ranker import ListPolicy
from registry.release import Release
from registry.retrieval import RETRIEVAL, Factors
from registry.scoring.candidates import (
    first,
    from_index,
    from_neighbours,
    from_population,
    places_of_neighbours,
    places_of_others,
    pooled,
    requester_factors,
    taste_of,
    topped_up,
)
from registry.scoring.pool import Pool
from registry.scoring.two_stages import primary_source
from serving.pool import Requester
from serving.run import Run, breathe
from serving.stages.safety import asked_at_once


@dataclass(frozen=True)
class Found:
    """The candidates of a request, and what was computed of the requester on the way."""

    pool: Pool
    factors: Factors
    taste: Taste | None


async def found_for(
    run: Run,
    release: Release,
    population: Population,
    requester: Requester,
    terms: Terms,
    *,
    policy: ListPolicy,
    n: int,
    rng: np.random.Generator,
) -> Found:
    """Return at most `n` people who may be shown: the steps of `registry.scoring.two_stages`."""
    factors, taste = requester_factors(release, requester, run.at), taste_of(release, requester)
    with serving_metrics().inference_seconds.labels("index").time():
        found = from_index(
            release,
            population,
            terms,
            factors,
            weight=policy.weight,
            n=n,
            late=run.newcomers.get(release.release_id),
            may_widen=lambda: run.remaining_s() > 0,
        )
    await breathe()
    primary = primary_source(policy)
    wide = n if primary != RETRIEVAL else places_of_neighbours(n)
    lists = {RETRIEVAL: found, **from_neighbours(taste, population, terms, wide)}
    await breathe()
    missing = asked_at_once(run.request.limit) - len(found)
    places = places_of_others(n, len(found))
    lists |= from_population(population, requester, terms, places, rng=rng, at=run.at, at_least=missing)
    lists = first(lists, primary)
    merged = topped_up(population, requester.person, terms, lists, n=n, places=places, rng=rng, at=run.at)
    return Found(pooled(population, merged, n), factors, taste)
