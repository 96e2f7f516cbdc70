"""The read-out of a shadow finds what it would have reached, on a world whose truth is known."""

from datetime import UTC, datetime

import numpy as np
import pytest

from feature_repo.population.people import People
from pipelines.experiments.counterfactual import ESTIMATORS, IPS, ROBUST, SNIPS, Showings, by_place, estimate
from pipelines.ingest.world.synthetic import SELF_SELECTED, World
from registry.scoring.pool import Pool
from registry.scoring.retrieval import CandidateList, merge_candidates
from serving.recommend.pool import Ranked
from serving.recommend.stages.reranking import explore

SHARE, LIMIT, CANDIDATES, REQUESTS, PEOPLE = 0.2, 2, 12, 300, 60


def showings(**columns: object) -> Showings:
    n = len(np.asarray(columns["logged"]))
    filled = {
        "user_ids": np.arange(n), "places": np.ones(n, dtype=np.int64), "target": np.ones(n),
        "filled": np.ones(n, dtype=np.bool_), "liked": np.zeros(n, dtype=np.bool_),
        "matched": np.zeros(n, dtype=np.bool_), **columns,
    }  # fmt: skip
    return Showings(**{name: np.asarray(column) for name, column in filled.items()})


def ranked_by(score: np.ndarray) -> Ranked:
    """Return a pool of candidates in the order of a score, every one of whom may be drawn by exploration."""
    n = len(score)
    ids = np.arange(n, dtype=np.int64)
    drawn = CandidateList(ids, np.zeros(n, np.float32), np.ones(n, np.float32))
    pool = Pool(People.build(ids), merge_candidates({"random": drawn}))
    order = np.argsort(-score, kind="stable").astype(np.int64)
    return Ranked(pool, order, score.astype(np.float32), np.ones(n, np.float32))


def test_a_shadow_is_estimated_from_a_champion_that_shows_the_popular_where_people_choose_whom_they_see() -> None:
    world = World.generate(400, 3, days=30, until=datetime(2026, 6, 1, tzinfo=UTC), world=SELF_SELECTED)
    rng = np.random.default_rng(0)
    logged: dict[str, list[float]] = {name: [] for name in ("user_ids", "places", "logged", "target", "liked")}
    truth = []
    for actor in range(1, PEOPLE + 1):
        exposure = world.exposure_propensity(actor)
        targets = np.flatnonzero(exposure > 0)
        if targets.size < CANDIDATES:
            continue
        targets = rng.choice(targets, CANDIDATES, replace=False)
        likes = world.like_probability(actor, world.user_ids[targets])
        champion, shadow = ranked_by(exposure[targets]), ranked_by(-likes)
        for _ in range(REQUESTS):
            shown, would = (explore(one, LIMIT, SHARE, rng) for one in (champion, shadow))
            mine, theirs = shown.order[:LIMIT], would.order[:LIMIT]
            logged["user_ids"] += [actor] * LIMIT
            logged["places"] += range(1, LIMIT + 1)
            logged["logged"] += shown.propensity[mine].tolist()
            logged["target"] += (mine == theirs).astype(float).tolist()
            logged["liked"] += (rng.random(LIMIT) < likes[mine]).tolist()
            truth.append(likes[theirs[LIMIT // 2 :]].mean())  # exploration reaches the lower half
    found = estimate(showings(**logged))
    assert found is not None
    expected = float(np.mean(truth))
    assert found.own["like_rate"] > expected + 0.2, "the champion's own rate says nothing of the shadow"
    for name in ESTIMATORS:
        reached = found.estimates["like_rate"][name]
        low, high = reached.interval()
        assert low < expected < high, name
        assert reached.value == pytest.approx(expected, abs=0.04), name
        assert reached.effective_rows < found.showings / 10, "few showings speak for another order"


def test_a_shadow_in_the_same_order_is_not_overrated_where_chance_draws_whom_both_would_show_anyway() -> None:
    rng = np.random.default_rng(1)
    likes = np.full(8, 0.3)
    order = ranked_by(np.arange(8.0))
    logged, target = [], []
    for _ in range(3_000):
        shown, would = (explore(order, 2, 0.25, rng) for _ in range(2))
        logged.append(float(shown.propensity[shown.order[1]]))
        target.append(float(shown.order[1] == would.order[1]))
    found = estimate(showings(logged=logged, target=target, liked=rng.random(3_000) < likes[0]))
    assert found is not None
    assert found.estimates["like_rate"][IPS].value == pytest.approx(0.3, abs=0.05)


def test_a_shadow_that_shows_the_same_reaches_the_same() -> None:
    found = estimate(
        showings(logged=np.full(4, 0.5), target=np.full(4, 0.5), liked=np.array([True, False, False, True]))
    )
    assert found is not None
    assert [found.estimates["like_rate"][name].value for name in (IPS, SNIPS, ROBUST)] == pytest.approx([0.5] * 3)
    assert found.own == {"like_rate": 0.5, "match_rate": 0.0}


def test_showings_that_no_chance_could_have_changed_are_left_out_and_none_of_them_say_nothing() -> None:
    found = estimate(showings(logged=[np.nan, 0.0, 0.5, 1.0, 1.5], liked=[True, True, False, True, True]))
    assert found is not None
    assert (found.showings, found.own["like_rate"]) == (1, 0.0)
    assert estimate(showings(logged=[np.nan, 0.0, 1.0])) is None


def test_the_model_of_a_place_is_fitted_on_the_other_half_of_the_people() -> None:
    liked = np.array([True, True, False, True, False, False])
    rows = showings(
        logged=np.ones(6), user_ids=[1, 2, 3, 4, 1, 2], places=[1, 1, 1, 1, 2, 2], liked=liked, target=np.ones(6)
    )
    # People 1 and 3 are one half, 2 and 4 the other: at place 1 they like half and all of those shown.
    assert by_place(rows, liked, np.ones(6)).tolist() == [1.0, 0.5, 1.0, 0.5, 0.0, 0.0]
