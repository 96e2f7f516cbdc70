"""The ladder of similar people: by the factors of the release, else by profiles; at random, nobody is similar."""

from dataclasses import dataclass

import numpy as np

from feature_repo.population.people import People
from feature_repo.transforms import content_score
from infra.settings import Settings
from registry.models.arrays import Floats
from registry.scoring.similar import similar_candidates, similarity
from serving.reasons import Level, Reason, Stage
from serving.recommend.answer_run import Run, breathe
from serving.recommend.levels import Strategy, needed_population, needed_release, people_around
from serving.recommend.pool import KnownRequester, Pool, Ranked
from serving.recommend.stages.filtering import terms_of
from serving.recommend.stages.safety import asked_at_once


@dataclass(frozen=True)
class SimilarByFactors:
    """Level 1: whom the same people choose as they choose the one of `anchor`."""

    settings: Settings
    rng: np.random.Generator
    anchor: People
    level: Level = Level.FULL

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        """Order the candidates by the cosine of their factors and those of the anchor."""
        release, population = needed_release(run), needed_population(run)
        with run.stage(Stage.FILTERING):
            terms = terms_of(requester, run.request.filters, run.at, run.slots).excluding(self.anchor.user_ids)
        async with run.timely(Stage.RETRIEVAL, fails_as=Reason.RETRIEVAL_FAILED):
            pool = similar_candidates(
                release,
                population,
                requester,
                terms,
                self.anchor,
                n=self.settings.serving.n_candidates,
                at=run.at,
                rng=self.rng,
                at_least=asked_at_once(run.request.limit),
                late=run.newcomers.get(release.mark),
                may_widen=lambda: run.remaining_s() > 0,
            )
            await breathe()
        async with run.timely(Stage.RANKING, fails_as=Reason.RANKING_FAILED):
            return _ordered(pool, similarity(release.embedding, self.anchor, pool.people, run.at))


@dataclass(frozen=True)
class SimilarByProfile:
    """Level 2: whose profile is close to that of `anchor`."""

    settings: Settings
    rng: np.random.Generator
    anchor: People
    level: Level = Level.CONTENT

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        """Order people around the requester by how close their profiles are to the anchor's."""
        population = needed_population(run)
        with run.stage(Stage.FILTERING):
            terms = terms_of(requester, run.request.filters, run.at, run.slots).excluding(self.anchor.user_ids)
        with run.stage(Stage.RETRIEVAL, fails_as=Reason.CONTENT_FAILED):
            pool = people_around(run, population, requester, terms, n=self.settings.serving.n_candidates, rng=self.rng)
        await breathe()
        with run.stage(Stage.RANKING, fails_as=Reason.CONTENT_FAILED):
            return _ordered(pool, content_score(self.anchor, pool.people, run.at))


def similar_ladder(settings: Settings, rng: np.random.Generator, anchor: People) -> tuple[Strategy, ...]:
    """Return the strategies for people similar to the one of `anchor`, best first."""
    return SimilarByFactors(settings, rng, anchor), SimilarByProfile(settings, rng, anchor)


def _ordered(pool: Pool, score: Floats) -> Ranked:
    order = np.lexsort((pool.people.user_ids, -score)).astype(np.int64)
    return Ranked(pool, order, score, np.ones(len(pool), dtype=np.float32))
