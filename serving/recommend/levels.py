"""The ladder: strategies from the best answer to the one that needs least, tried in order.

A strategy orders people or raises LevelUnavailable with the reason that the answer will name. Hard filters run inside
each of them and the safety check after any of them; the empty answer is not a strategy, it is what is left.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import Terms, content_score, profile_vectors
from infra.settings import Settings
from registry.release import Release
from registry.scoring.candidates import from_population, pooled
from registry.scoring.ranking import served_policy
from registry.scoring.retrieval import CandidateList, merge_candidates
from serving.errors import LevelUnavailable
from serving.people.people_store import PeopleStore
from serving.people.wanted import wishes_of
from serving.reasons import CandidateSource, Level, Reason, Stage
from serving.recommend.answer_run import Run, breathe
from serving.recommend.pool import KnownRequester, Pool, Ranked
from serving.recommend.stages.filtering import filter_pool, terms_of
from serving.recommend.stages.ranking import Predict, predict_here, rank
from serving.recommend.stages.reranking import explore, spread_exposure
from serving.recommend.stages.retrieval import found_for
from serving.recommend.stages.safety import asked_at_once
from serving.resilience.models import Model, ModelBreakers

RANDOM_DRAW: Final = 500
FITTING_DRAW: Final = 4 * RANDOM_DRAW
"""People drawn where only some of them have the attributes that are asked for."""
LAST_SHARE: Final = 0.5
"""Of all that is left, what level 3 may take: the rest is for the check of safety."""


class Strategy(Protocol):
    """One way to order people for somebody."""

    @property
    def level(self) -> Level:
        """Return which level this is."""

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        """Return people in order; raises LevelUnavailable, or EligibilityUnknown which no lower level can mend."""
        ...


@dataclass(frozen=True)
class FullLevel:
    """Level 1: the release's index and every other source, in the order that its ranker or its retrieval gives."""

    settings: Settings
    rng: np.random.Generator
    models: ModelBreakers | None = None
    predict: Predict = predict_here
    level: Level = Level.FULL

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        """Run both stages on the release that the run captured."""
        release, population = needed_release(run), needed_population(run)
        serving = self.settings.serving
        with run.stage(Stage.FILTERING):
            terms = terms_of(requester, run.request.filters, run.at, run.slots)
        async with run.timely(Stage.RETRIEVAL, fails_as=Reason.RETRIEVAL_FAILED):
            policy = served_policy(release, self.settings)
            with self._guarding(Model.RETRIEVAL, run, release):
                found = await found_for(
                    run,
                    release,
                    population,
                    requester,
                    terms,
                    policy=policy,
                    n=self.settings.serving.n_candidates,
                    rng=self.rng,
                )
            await breathe()
        async with run.timely(Stage.RANKING, fails_as=Reason.RANKING_FAILED):
            with self._guarding(Model.RANKER, run, release):
                ranked = await rank(
                    release,
                    requester,
                    found,
                    run.recent_likes,
                    policy,
                    at=run.at,
                    predict=self.predict,
                    within_s=run.share_s(Stage.RANKING),
                )
        with run.stage(Stage.RERANKING):
            ranked = spread_exposure(ranked, release.prices, policy.exposure_strength)
            return explore(ranked, run.request.limit, serving.exploration_share, self.rng)

    @contextmanager
    def _guarding(self, model: Model, run: Run, release: Release) -> Iterator[None]:
        if self.models is None:
            yield
            return
        try:
            with self.models.guarding(model, release, run.variant):
                yield
        except LevelUnavailable as cut_off:
            if cut_off.reason is not Reason.DEADLINE_EXCEEDED:
                run.degrade(Stage.RETRIEVAL if model is Model.RETRIEVAL else Stage.RANKING)
            raise


@dataclass(frozen=True)
class ContentLevel:
    """Level 2: the order of profiles alone; needs no model."""

    settings: Settings
    rng: np.random.Generator
    level: Level = Level.CONTENT

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        """Order the population's candidates by how close their profiles are."""
        population = needed_population(run)
        if not run.safety_s():
            raise LevelUnavailable(Reason.DEADLINE_EXCEEDED, "There was no time left for anything.")
        with run.stage(Stage.FILTERING):
            terms = terms_of(requester, run.request.filters, run.at, run.slots)
        # It computes a millisecond or two, which may come out of what is kept back for safety.
        with run.stage(Stage.RETRIEVAL, fails_as=Reason.CONTENT_FAILED):
            pool = people_around(run, population, requester, terms, n=self.settings.serving.n_candidates, rng=self.rng)
        await breathe()
        with run.stage(Stage.RANKING, fails_as=Reason.CONTENT_FAILED):
            score = content_score(requester.person, pool.people, run.at)
            order = np.lexsort((pool.people.user_ids, -score)).astype(np.int64)
            ranked = Ranked(pool, order, score, np.ones(len(pool), dtype=np.float32))
        with run.stage(Stage.RERANKING):
            return explore(ranked, run.request.limit, self.settings.serving.exploration_share, self.rng)


@dataclass(frozen=True)
class RandomLevel:
    """Level 3: eligible people at random, straight from Postgres; needs neither a model nor a population."""

    people: PeopleStore
    rng: np.random.Generator
    level: Level = Level.RANDOM

    async def rank(self, run: Run, requester: KnownRequester) -> Ranked:
        """Draw visible people, keep the eligible, shuffle them."""
        with run.stage(Stage.RETRIEVAL):
            share = float(self.rng.random())
            wishes = wishes_of(run.request.filters)
            draw = RANDOM_DRAW if wishes is None else FITTING_DRAW
            chosen = await self.people.some_visible(share, draw, run.safety_s() * LAST_SHARE, wishes)
        with run.stage(Stage.FILTERING):
            columns = chosen.rows.columns
            drawn = People.build(columns["user_id"], profile=profile_vectors(columns))
            propensity = chosen.propensity[np.argsort(columns["user_id"], kind="stable")]  # people stand by id
            everybody = merge_candidates(
                {
                    CandidateSource.RANDOM.value: CandidateList(
                        drawn.user_ids, np.zeros(len(drawn), np.float32), propensity
                    )
                }
            )
            pool = filter_pool(requester, Pool(drawn, everybody), run.request.filters, run.at)
        with run.stage(Stage.RANKING):
            order = self.rng.permutation(len(pool)).astype(np.int64)
            # Two draws: to be among those who were read, and to get a place among those of them who may be shown.
            chance = np.float32(min(run.request.limit / max(len(pool), 1), 1.0))
            return Ranked(pool, order, np.zeros(len(pool), np.float32), chance * pool.found.propensity[:, 0])


def ladder(
    settings: Settings,
    people: PeopleStore,
    rng: np.random.Generator,
    models: ModelBreakers | None = None,
    predict: Predict = predict_here,
) -> tuple[Strategy, ...]:
    """Return the strategies, best first."""
    return FullLevel(settings, rng, models, predict), ContentLevel(settings, rng), RandomLevel(people, rng)


def people_around(
    run: Run, population: Population, requester: KnownRequester, terms: Terms, *, n: int, rng: np.random.Generator
) -> Pool:
    """Return people who may be shown, from the sources that need no model, up to `n` of each."""
    enough = asked_at_once(run.request.limit)
    lists = from_population(population, requester, terms, n, rng=rng, at=run.at, at_least=enough)
    return pooled(population, merge_candidates(lists))


def needed_release(run: Run) -> Release:
    """Return the release of a run; raises LevelUnavailable with the reason why there is none."""
    if run.release is None:
        raise run.no_release or LevelUnavailable(Reason.NO_RELEASE, "No model is in production yet: promote a release.")
    return run.release


def needed_population(run: Run) -> Population:
    """Return the population of a run; raises LevelUnavailable where it is not loaded."""
    if run.population is None or not len(run.population):
        raise LevelUnavailable(Reason.POPULATION_UNAVAILABLE, "The snapshot of people is not loaded yet.")
    return run.population
