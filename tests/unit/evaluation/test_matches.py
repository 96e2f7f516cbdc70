"""Whether a pair matches: the product of two sides against a joint model, in worlds whose right answer is known."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from feature_repo.layout import RANKING_FEATURES
from pipelines import metrics
from pipelines.evaluation.matches import COLUMNS, MetPairs, evenings_of, match_table
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.files import RankingRows
from pipelines.ranking.learn import learn
from pipelines.ranking.rows import RowKind

SIDE = 10  # people on each side of an evening, of whom every one meets every one of the other side
EVENINGS, LATE = 24, 8
CONFIG = RankerConfig(threads=1, learning_rate=0.3)
ROUNDS = 200
TASTE, MOOD = RANKING_FEATURES.index("score_forward"), RANKING_FEATURES.index("distance_km")


def evenings(kind: str) -> RankingRows:
    """Everybody's decisions on everybody whom they met.

    On `independent` evenings the taste of each side decides alone. On `agreeing` ones nobody's taste says anything:
    near to each other the two always agree, far away they never do, and either likes every second one.
    """
    rng = np.random.default_rng(3)
    who, whom = (side.ravel() for side in np.meshgrid(np.arange(SIDE), SIDE + np.arange(SIDE)))
    first = 2 * SIDE * np.arange(EVENINGS)[:, None]
    low, high = (first + who).ravel(), (first + whom).ravel()
    n = low.size
    taste, near = rng.normal(size=(2, n)), rng.random(n) < 0.5
    if kind == "independent":
        likes = rng.random((2, n)) < chance(taste)
    else:
        drawn = rng.random(n) < 0.5
        likes = np.stack([drawn, np.where(near, drawn, ~drawn)])
    features = np.full((2 * n, len(RANKING_FEATURES)), np.nan, dtype=np.float32)
    features[:, TASTE], features[:, MOOD] = taste.ravel(), np.tile(near, 2)
    evening = np.tile(np.repeat(np.arange(EVENINGS), SIDE * SIDE), 2)
    return RankingRows(
        features=features,
        labels=likes.ravel().astype(np.float32),
        at_us=1_000_000 + evening.astype(np.int64),
        requester_ids=np.concatenate([low, high]),
        candidate_ids=np.concatenate([high, low]),
        weights=np.ones(2 * n, dtype=np.float32),
        kind=np.full(2 * n, RowKind.LIKE, dtype=np.int8),
        late=evening >= EVENINGS - LATE,
    )


def chance(taste: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-2.0 * taste))


@cache
def said(kind: str) -> pd.DataFrame:
    """The table of one world by method and measure, from a ranker grown on its early evenings."""
    rows = evenings(kind)
    early = rows.take(~rows.late)
    nobody = np.empty(0, dtype=np.int64)
    table = match_table(
        learn(early, CONFIG).ranker, CONFIG, early, rows.take(rows.late), known_ids=nobody, rounds=ROUNDS, seed=1
    )
    return table.set_index(["method", "measure"])


def test_where_the_sides_decide_alone_the_product_is_as_good_as_a_joint_model() -> None:
    table = said("independent")
    rows = evenings("independent").take(evenings("independent").late)
    pairs = MetPairs.of(rows)
    true = chance(rows.features[pairs.there, TASTE]) * chance(rows.features[pairs.back, TASTE])
    least = log_loss(pairs.matched, true)
    assert table.loc[("product", "log_loss"), "value"] == pytest.approx(least, abs=0.02)
    assert table.loc[("calibrated_product", "log_loss"), "value"] == pytest.approx(least, abs=0.02)
    assert table.loc[("joint", "log_loss"), "difference_high"] > 0
    assert table.loc[("joint", "auc"), "difference_low"] < 0
    assert table.loc[("base_rate", "log_loss"), "difference_low"] > 0.05


def test_where_the_sides_agree_by_what_neither_shows_alone_the_joint_model_wins() -> None:
    table = said("agreeing")
    assert table.loc[("joint", "log_loss"), "difference_high"] < -0.1
    assert table.loc[("joint", "auc"), "difference_low"] > 0.15
    low, high = table.loc[("product", "auc"), ["low", "high"]]
    assert low < 0.5 < high, "neither side's probability says who matches"
    # Every second near pair matches and no other: of the rest one third is near too, which is a draw.
    assert table.loc[("joint", "auc"), "value"] == pytest.approx(2 / 3 + 1 / 6, abs=0.03)


def test_the_table_states_measures_intervals_and_differences_over_the_same_pairs() -> None:
    table = said("independent")
    assert [*table.index.names, *table.columns] == list(COLUMNS)
    assert set(table["pairs"]) == {LATE * SIDE * SIDE}
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    apart = table["value"] - table["value"]["calibrated_product"].reindex(table.index, level=1)
    beside = table.index.get_level_values("method") != "calibrated_product"
    np.testing.assert_allclose(table["difference"][beside], apart[beside])
    assert table["difference"][~beside].isna().all()


def test_evenings_that_somebody_had_already_spent_are_left_out_where_others_are_enough() -> None:
    rows = evenings("agreeing")
    early, late = rows.take(~rows.late), rows.take(rows.late)
    ranker = learn(early, CONFIG).ranker
    began = np.arange(2 * SIDE * (EVENINGS - 6))  # everybody of the first two held-out evenings too
    everybody = np.unique(rows.requester_ids)

    def pairs(known: np.ndarray) -> int:
        found = match_table(ranker, CONFIG, early, late, known_ids=known, rounds=50, seed=1)
        return int(found["pairs"].iloc[0])

    assert pairs(began) == 6 * SIDE * SIDE
    assert pairs(everybody) == LATE * SIDE * SIDE


def test_later_evenings_move_nothing_that_was_fitted() -> None:
    rows = evenings("independent")
    early, late = rows.take(~rows.late), rows.take(rows.late)
    ranker = learn(early, CONFIG).ranker
    other = RankingRows(**{**late.__dict__, "labels": 1.0 - late.labels})
    nobody = np.empty(0, dtype=np.int64)
    honest, turned = (
        match_table(ranker, CONFIG, early, shown, known_ids=nobody, rounds=50, seed=1).set_index(["method", "measure"])
        for shown in (late, other)
    )
    assert turned.loc[("joint", "auc"), "value"] < 0.5 < honest.loc[("joint", "auc"), "value"]
    assert turned.loc[("calibrated_product", "auc"), "value"] < 0.5


def test_only_pairs_that_decided_at_one_instant_are_asked_because_others_knew_the_answer() -> None:
    rows = evenings("agreeing").take(np.isin(evenings("agreeing").at_us, [1_000_000]))
    answered = RankingRows(**{**rows.__dict__, "at_us": rows.at_us + (rows.requester_ids == 3)})
    assert len(MetPairs.of(rows)) == SIDE * SIDE
    assert len(MetPairs.of(answered)) == SIDE * (SIDE - 1)
    assert not (MetPairs.of(answered).people == 3).any()


def test_too_few_pairs_say_nothing() -> None:
    rows = evenings("agreeing")
    early, ranker = rows.take(~rows.late), learn(rows.take(~rows.late), CONFIG).ranker
    few = rows.take(rows.late & (rows.requester_ids % SIDE < 2) & (rows.candidate_ids % SIDE < 2))
    nobody = np.empty(0, dtype=np.int64)
    table = match_table(ranker, CONFIG, early, few, known_ids=nobody, rounds=50, seed=1)
    assert table.empty
    assert list(table.columns) == list(COLUMNS)


def test_an_evening_is_who_met_the_same_people_and_a_part_of_time_where_all_are_one() -> None:
    rows = evenings("agreeing")
    pairs = MetPairs.of(rows)
    found = pd.Series(evenings_of(pairs)).groupby(pairs.at_us).nunique()
    assert (found == 1).all()
    assert np.unique(evenings_of(pairs)).size == EVENINGS
    one = pairs.take(pairs.at_us == pairs.at_us.min())
    assert np.bincount(evenings_of(one)).tolist() == [SIDE * SIDE // 5] * 5


def test_measures_under_weights_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    labels, said_of = rng.random(200) < 0.4, np.round(rng.random(200), 1)
    weights = rng.integers(0, 4, 200).astype(np.float64)
    found = metrics.weighed_auc(labels, said_of)(weights), metrics.weighed_log_loss(labels, said_of)(weights)
    clipped = np.clip(said_of, 1e-7, 1 - 1e-7)
    wanted = (
        roc_auc_score(labels, said_of, sample_weight=weights),
        log_loss(labels, clipped, sample_weight=weights),
    )
    assert found == pytest.approx(wanted)
    assert metrics.weighed_auc(labels, said_of)(np.ones(200)) == pytest.approx(metrics.auc(labels, said_of))


def test_people_are_drawn_and_a_pair_counts_as_often_as_both_of_them_were() -> None:
    star = np.array([[1, 2], [1, 3], [1, 4]])
    drawn = np.array(list(metrics.drawn_people(star, 400, 1)))
    centre_missed = (drawn == 0).all(axis=1).mean()
    assert centre_missed > 0.25, "without the one whom all met there is no pair"
    assert drawn.mean() == pytest.approx(1 - 1 / 4, abs=0.1)  # the mean of a product of two multinomial counts
