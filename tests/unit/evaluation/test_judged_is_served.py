"""What is judged is what is served: the evaluation's two-stage list and the training rows, beside the served ones.

What serving reads of a person from Postgres is told here a second time, by loops over the events that share nothing
with the way the pipelines read them.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
import xgboost

from feature_repo.layout import CONTEXT_COLUMNS, EVIDENCE_COLUMNS, LIST_COLUMNS, RANKING_FEATURES, TASTE_COLUMNS
from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import PairContext, ranking_features, ranking_matrix
from infra.settings import Settings
from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.methods import by_two_stages
from pipelines.evaluation.scene import Scene
from pipelines.evaluation.windows import windows_between
from pipelines.features.events import BLOCK, LIKE, PASS, SUPERLIKE, Events
from pipelines.ranking.config import DatasetConfig
from pipelines.ranking.context import EverybodysFactors
from pipelines.ranking.lists import policies, served_lists
from pipelines.ranking.requests import PastRequester, PastTaste
from pipelines.ranking.rows import Window, WindowRows, choice_rows, like_rows
from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.dataset import first_decisions
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.index_build import build_candidate_index
from pipelines.retrieval.neighbours import fit_neighbours
from registry.contracts import ArtifactKind, FileEntry, Manifest, ReleaseVersions
from registry.models.ranker import Aggregator, ForwardModel, ListPolicy, Order, Ranker
from registry.release import Release
from registry.scoring.context import pair_context
from registry.scoring.recent_likes import RecentLikes
from registry.scoring.two_stages import Candidates, CandidateStep, candidate_steps, find_candidates
from serving.api.recommendation_models import RecommendationRequest
from serving.people.people_store import PendingLikes
from serving.recommend.answer_run import Run
from serving.recommend.levels import FullLevel
from serving.recommend.pool import KnownRequester, Ranked
from serving.recommend.stages.filtering import terms_of
from serving.recommend.stages.retrieval import found_for
from serving.resilience.deadline import Deadline
from tests.clocks import FixedClock
from tests.serving_fakes import people_of, person

N = 40
T0, T1 = 1_770_000_000_000_000, 1_770_086_400_000_000
AT = T1 / 1e6
EVERYBODY = 300


@dataclass(frozen=True)
class World:
    """People with a past, and a release fitted on it."""

    people: People
    events: Events
    release: Release
    population: Population

    def scene(self) -> Scene:
        windows = windows_between(self.events, T0, T1)
        factors = EverybodysFactors.of(self.release.embedding, self.people.user_ids, inputs_of(self.people, AT))
        config = EvaluationConfig(n_candidates=EVERYBODY)
        return Scene(
            self.people, self.events, windows, factors, config, True, judged=self.release, population=self.population
        )

    def requester(self, position: int, before_us: int) -> KnownRequester:
        """What serving would read of somebody just before an instant."""
        latest: dict[int, tuple[int, int]] = {}
        received: dict[int, list[int]] = {}
        liked_at: dict[int, int] = {}
        ended, apart = set(), set()
        for actor, target, kind, at in self._past(before_us):
            if actor == position:
                ended.add(target)
                if kind != BLOCK:
                    latest[target] = (at, kind)
            if target == position:
                if kind == BLOCK:
                    apart.add(actor)
                else:
                    received.setdefault(actor, []).append(kind)
                    if kind != PASS:
                        liked_at[actor] = at
        newest = sorted(latest, key=lambda other: -latest[other][0])
        ever = sorted((actor for actor in liked_at if actor not in ended), key=lambda actor: -liked_at[actor])
        return KnownRequester(
            int(self.people.user_ids[position]),
            self.people.take([position]),
            self._ids(sorted(ended | apart)),
            self._ids([other for other in newest if latest[other][1] != PASS]),
            self._ids([other for other in newest if latest[other][1] == PASS]),
            PendingLikes(self._ids(ever), self._ids([actor for actor in ever if received[actor][-1] != PASS])),
        )

    def recent_likes(self, before_us: int) -> RecentLikes:
        """What serving would hold of everybody's latest likes."""
        liked: list[list[int]] = [[] for _ in range(N)]
        for actor, target, kind, _ in self._past(before_us):
            if kind in (LIKE, SUPERLIKE):
                liked[actor].insert(0, int(self.people.user_ids[target]))
        return RecentLikes.build([(int(self.people.user_ids[at]), own) for at, own in enumerate(liked)])

    def _past(self, before_us: int) -> list[tuple[int, int, int, int]]:
        e = self.events
        rows = zip(e.actor.tolist(), e.target.tolist(), e.kind.tolist(), e.at_us.tolist(), strict=True)
        return [row for row in rows if row[3] < before_us]

    def _ids(self, positions: list[int]) -> np.ndarray:
        return self.people.user_ids[np.array(positions, dtype=np.int64)]


def events(people: People) -> Events:
    """Return two days of decisions, some of them taken back, with a few blocks."""
    rng = np.random.default_rng(4)
    per_person = 12
    actor = np.repeat(np.arange(N), per_person)
    rng.shuffle(actor)
    target = (actor + 1 + 2 * rng.integers(0, N // 2, actor.size)) % N  # of the other kind
    kind = rng.choice([LIKE, PASS, SUPERLIKE, BLOCK], size=actor.size, p=[0.55, 0.35, 0.07, 0.03])
    at = T0 - (T1 - T0) + np.sort(rng.choice(2 * (T1 - T0) + 1_000_000, size=actor.size, replace=False))
    return Events(
        people.user_ids, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), at.astype(np.int64)
    )


def trees(seed: int) -> xgboost.Booster:
    """Return a booster that looks at every column."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(400, len(RANKING_FEATURES))).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    labels = (np.nan_to_num(features) @ rng.normal(size=features.shape[1]) > 0).astype(np.float32)
    matrix = xgboost.DMatrix(features, labels, feature_names=list(RANKING_FEATURES))
    parameters = {"objective": "binary:logistic", "max_depth": 4, "seed": seed, "nthread": 1, "colsample_bytree": 0.3}
    return xgboost.train(parameters, matrix, 40)


@pytest.fixture(scope="module")
def world() -> World:
    people = people_of([person(10 + user_id) for user_id in range(N)])
    past = events(people)
    known = past.between(None, T0)
    inputs = inputs_of(people, AT)
    embedding, _ = fit_embedding(known, people.user_ids, inputs, EmbeddingConfig(dimensions=4, iterations=4))
    index, _ = build_candidate_index(embedding, people.user_ids, inputs, IndexBuildConfig())
    choice = Ranker.from_booster(trees(2), RANKING_FEATURES)
    ranker = Ranker.from_booster(trees(1), RANKING_FEATURES, choice=choice)
    manifest = Manifest(
        kind=ArtifactKind.RANKER,
        files={"ranker.ubj": FileEntry(sha256="0" * 64, size=1)},
        parameters={"last_likes": 5},
    )
    release = Release(
        ReleaseVersions(1, 1, 1), embedding, index, ranker, dict.fromkeys(ArtifactKind, manifest), fit_neighbours(known)
    )
    return World(people, past, release, Population.build(people))


def served(
    world: World, position: int, policy: ListPolicy, settings: Settings, n_candidates: int = EVERYBODY
) -> Ranked:
    """Ask level 1 for everybody it may show, or for the best of so many candidates."""
    serving = settings.serving.model_copy(
        update={
            "exploration_share": 0.0, "n_candidates": n_candidates, "aggregator": policy.aggregator.value,
            "requester_weight": policy.weight,
        }
    )  # fmt: skip
    level = FullLevel(settings.model_copy(update={"serving": serving}), np.random.default_rng(1))
    run = run_at(world, position, T1 + 1, limit=50 if n_candidates == EVERYBODY else 1)
    return asyncio.run(level.rank(run, world.requester(position, T1 + 1)))


def run_at(world: World, position: int, at_us: int, limit: int = 50) -> Run:
    clock = FixedClock(datetime.fromtimestamp(at_us // 1_000_000, UTC))
    return Run(
        RecommendationRequest(user_id=int(world.people.user_ids[position]), limit=limit), UUID(int=1),
        world.release, world.population, AT if at_us == T1 + 1 else at_us / 1e6, 0.0, Deadline.after(60.0, clock),
        clock, recent_likes=world.recent_likes(at_us),
    )  # fmt: skip


POLICIES = (
    ListPolicy(),
    ListPolicy(Order.RANKER, ForwardModel.CHOICE, Aggregator.HARMONIC, 0.8),
    ListPolicy(Order.RETRIEVAL, weight=0.3),
    ListPolicy(Order.BLEND),
    ListPolicy(Order.ITEM_KNN),
)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.order.value}-{policy.forward.value}")
def test_the_list_of_two_stages_that_is_judged_is_the_served_one_person_by_person(
    world: World, policy: ListPolicy, settings: Settings
) -> None:
    ranker = Ranker(**{**world.release.ranker.__dict__, "policy": policy})
    release = replace(world.release, ranker=ranker)
    chosen = World(world.people, world.events, release, world.population)
    scene = chosen.scene()
    lengths = []
    for position in range(N):
        ranked = served(chosen, position, policy, settings)
        ids = ranked.pool.people.user_ids[ranked.order]
        candidates = np.random.default_rng(position).permutation(scene.people.positions(np.sort(ids)))
        judged = by_two_stages(release, world.population)(scene, position, candidates, np.random.default_rng(position))
        assert scene.people.user_ids[judged].tolist() == ids.tolist(), f"person {10 + position}"
        lengths.append(len(ids))
    assert min(lengths) > N // 8


def test_every_order_that_is_compared_is_judged_by_the_list_it_would_serve_from_few_candidates(
    world: World, settings: Settings
) -> None:
    neighbours = world.release.neighbours
    assert neighbours is not None
    compared = policies(world.release.ranker, aggregator="auto", sources=neighbours.sources)
    assert {Order.POPULAR, Order.ITEM_KNN, Order.EASE, Order.BLEND, Order.RANKER} <= {one.order for one in compared}
    requests, few = world.scene().requests, N // 4
    for position in range(N):
        asked, others = requests.at(position, T1 + 1), PastTaste(world.people, requests.history, T1 + 1)

        def find(policy: ListPolicy, asked: PastRequester = asked, others: PastTaste = others) -> Candidates:
            return find_candidates(
                world.release, world.population, asked, asked.terms(AT), others,
                policy=policy, n=few, at=AT, rng=np.random.default_rng(1),
            )  # fmt: skip

        for policy, judged in zip(compared, served_lists(compared, find, world.release.ranker), strict=True):
            ranker = replace(world.release.ranker, policy=policy)
            ranked = served(
                replace(world, release=replace(world.release, ranker=ranker)), position, policy, settings, few
            )
            assert judged.tolist() == ranked.pool.people.user_ids[ranked.order].tolist(), f"{position}, {policy}"


def test_candidates_are_shared_by_orders_that_differ_in_nothing_the_first_stage_reads(world: World) -> None:
    compared = policies(
        world.release.ranker, aggregator="auto", sources=("item_knn", "user_knn", "spectral", "popular")
    )
    sought = []
    asked = world.scene().requests.at(0, T1 + 1)
    others = PastTaste(world.people, world.scene().requests.history, T1 + 1)

    def find(policy: ListPolicy) -> Candidates:
        sought.append(policy.order)
        rng = np.random.default_rng(1)
        return find_candidates(
            world.release, world.population, asked, asked.terms(AT), others, policy=policy, n=20, at=AT, rng=rng
        )

    assert len(list(served_lists(compared, find, world.release.ranker))) == len(compared)
    alone = [Order.ITEM_KNN, Order.USER_KNN, Order.SPECTRAL, Order.POPULAR]
    assert sought == [Order.RETRIEVAL, Order.RETRIEVAL, Order.BLEND, Order.BLEND, *alone]


def test_whom_neighbours_name_is_looked_up_only_where_likes_in_common_have_a_say(world: World) -> None:
    asked = world.scene().requests.at(0, T1 + 1)

    def steps(policy: ListPolicy) -> list[CandidateStep]:
        rng = np.random.default_rng(1)
        return list(
            candidate_steps(
                world.release, world.population, asked, asked.terms(AT), policy=policy, n=20, at=AT, rng=rng
            )
        )

    assert steps(ListPolicy(Order.RETRIEVAL)) == [CandidateStep.INDEX, CandidateStep.POPULATION]
    for order in (Order.RANKER, Order.BLEND, Order.ITEM_KNN):
        assert steps(ListPolicy(order)) == [CandidateStep.INDEX, CandidateStep.NEIGHBOURS, CandidateStep.POPULATION]


def training_features(world: World, rows: WindowRows, of: np.ndarray) -> np.ndarray:
    """Return the ranking vectors of some training rows, as the point-in-time join computes them from their context."""
    taste = [rows.context[of, place] for place in range(len(TASTE_COLUMNS))]
    context = PairContext(*taste, evidence=rows.context[of][:, len(TASTE_COLUMNS) :])
    people = world.people
    return ranking_features(people.take(rows.requester[of]), people.take(rows.candidate[of]), context, at_of(rows, of))


def at_of(rows: WindowRows, of: np.ndarray) -> np.ndarray:
    return rows.at_us[of] / 1e6


def served_features(world: World, position: int, at_us: int, candidates: np.ndarray) -> np.ndarray:
    """Return the ranking vectors that serving would have shown the ranker just before an instant."""
    requester, at = world.requester(position, at_us), at_us / 1e6
    run = run_at(world, position, at_us)
    assert run.population is not None
    found = asyncio.run(
        found_for(
            run, world.release, run.population, requester, terms_of(requester, None, at),
            policy=ListPolicy(), n=EVERYBODY, rng=np.random.default_rng(2),
        )
    )  # fmt: skip
    people = found.pool.people
    context = pair_context(world.release, requester, found.factors, found.taste, people, others=run.recent_likes, at=at)
    matrix = ranking_matrix(requester.person, people, context, at)[: len(people)]
    place = {user_id: row for row, user_id in enumerate(people.user_ids.tolist())}
    return matrix[[place[user_id] for user_id in world.people.user_ids[candidates].tolist()]]


def in_second_day(world: World) -> Window:
    decided = first_decisions(world.events).between(T0, T1)
    return Window(world.release, world.population, world.scene().requests, decided, np.ones(N, dtype=np.bool_))


def test_every_ranking_column_of_a_training_list_is_the_served_one(world: World) -> None:
    rows = choice_rows(in_second_day(world), DatasetConfig(negatives=EVERYBODY), ListPolicy(), EVERYBODY)
    requesters = np.unique(rows.requester).tolist()
    assert len(requesters) > N // 4
    known = set()
    for requester in requesters:
        of = rows.requester == requester
        trained = training_features(world, rows, of)
        shown = served_features(world, requester, int(rows.at_us[of][0]), rows.candidate[of])
        for column, name in enumerate(RANKING_FEATURES):
            np.testing.assert_array_equal(trained[:, column], shown[:, column], err_msg=f"{name} of {requester}")
        known |= set(np.flatnonzero(~np.isnan(trained).all(axis=0)).tolist())
    names = {RANKING_FEATURES[column] for column in known}
    assert {*TASTE_COLUMNS, *EVIDENCE_COLUMNS} <= names  # what is never known would be equal by accident


def test_every_ranking_column_of_a_decision_is_the_served_one_but_what_only_lists_have(world: World) -> None:
    window = in_second_day(world)
    rows = like_rows(window, DatasetConfig())
    begins = {}
    for row in range(len(rows)):
        day = int(rows.requester[row]), int(rows.at_us[row]) // 86_400_000_000
        begins.setdefault(day, int(rows.at_us[row]))
    alone = [RANKING_FEATURES.index(name) for name in CONTEXT_COLUMNS if name not in LIST_COLUMNS]
    compared = 0
    for (requester, day), at_us in begins.items():
        of = (rows.requester == requester) & (rows.at_us // 86_400_000_000 == day)
        showable = np.isin(rows.candidate[of], showable_to(world, requester, at_us))
        of[np.flatnonzero(of)[~showable]] = False
        if of.any():
            trained = training_features(world, rows, of)[:, alone]
            shown = served_features(world, requester, at_us, rows.candidate[of])[:, alone]
            # A matrix product over fewer rows may round its last digit another way.
            np.testing.assert_allclose(trained, shown, rtol=1e-3, atol=1e-6, err_msg=f"{requester} on day {day}")
            compared += int(of.sum())
    assert compared > N


def showable_to(world: World, position: int, at_us: int) -> np.ndarray:
    """Return the positions of those who may be shown: decisions on whoever had blocked them are still rows."""
    requester = world.requester(position, at_us)
    terms = terms_of(requester, None, at_us / 1e6)
    everybody = np.arange(N)
    return everybody[world.population.showable(terms, world.population.positions(world.people.user_ids))]


def test_a_like_that_was_taken_back_counts_alike_in_training_and_serving(world: World) -> None:
    requests = world.scene().requests
    changed = 0
    for position in range(N):
        past, now = requests.at(position, T1 + 1), world.requester(position, T1 + 1)
        for name in ("liked", "passed", "excluded", "liked_by", "waiting"):
            assert getattr(past, name).tolist() == getattr(now, name).tolist(), "the newest first, as serving has them"
        changed += len(now.liked_by) > len(now.waiting)
    assert changed
