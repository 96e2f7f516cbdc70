"""The trees find what decides, drop what cannot, and say honestly how good they are."""

import numpy as np
import pytest

from pipelines.ranking.config import RankerConfig
from pipelines.ranking.errors import BadFeatures, OneClass
from pipelines.ranking.plots import training_figures
from pipelines.ranking.train import train_ranker

NAMES = ("useful", "score_forward", "score_backward", "empty", "constant", "noise")
CONFIG = RankerConfig(rounds=60, early_stopping_rounds=10, threads=1, learning_rate=0.2, column_sample=1.0)


def rows(n: int = 2_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, len(NAMES))).astype(np.float32)
    features[:, NAMES.index("empty")] = np.nan
    features[:, NAMES.index("constant")] = 3.0
    probability = 1 / (1 + np.exp(-2.5 * features[:, 0]))
    labels = (rng.random(n) < probability).astype(np.float32)
    return features, labels, np.arange(n, dtype=np.int64)


def test_the_deciding_feature_is_found_and_dead_columns_are_dropped() -> None:
    booster, report = train_ranker(*rows(), CONFIG, feature_names=NAMES)
    assert report.feature_names == ("useful", "score_forward", "score_backward", "noise")
    assert next(iter(report.importance)) == "useful"
    assert report.auc > 0.85
    assert report.log_loss < report.base_log_loss
    assert report.calibration.error < 0.1
    assert booster.num_features() == 4
    assert report.dropped == {"empty": "empty: no row has a value", "constant": "constant: every row has 3"}
    assert report.validation_rows == 400


def test_equal_rows_give_equal_bytes() -> None:
    first, _ = train_ranker(*rows(), CONFIG, feature_names=NAMES)
    second, _ = train_ranker(*rows(), CONFIG, feature_names=NAMES)
    assert first.save_raw("ubj") == second.save_raw("ubj")


def test_validation_is_the_latest_rows_whatever_their_order() -> None:
    features, labels, at_us = rows()
    mixed = np.random.default_rng(4).permutation(labels.size)
    _, report = train_ranker(features[mixed], labels[mixed], at_us[mixed], CONFIG, feature_names=NAMES)
    np.testing.assert_array_equal(np.sort(report.validation_labels), np.sort(labels[at_us >= 1_600]))


def test_a_fixed_number_of_trees_holds_nothing_back() -> None:
    booster, report = train_ranker(*rows(), CONFIG, rounds=7, feature_names=NAMES)
    assert (booster.num_boosted_rounds(), report.rounds, report.validation_rows) == (7, 7, 0)


def test_a_heavy_row_counts_as_many_light_ones() -> None:
    features, labels, at_us = rows(400)
    weights = np.where(features[:, NAMES.index("noise")] > 0, np.float32(50), np.float32(1))
    flipped = np.where(weights > 1, 1 - labels, labels)
    booster, report = train_ranker(features, flipped, at_us, CONFIG, weights=weights, rounds=20, feature_names=NAMES)
    probe = np.zeros((2, len(report.feature_names)), dtype=np.float32)
    probe[:, report.feature_names.index("useful")] = [-2, 2]
    low, high = booster.inplace_predict(probe)
    assert low > high  # the heavy half says the opposite


def test_too_few_rows_still_give_a_ranker_without_validation() -> None:
    features, labels, at_us = rows(60)
    _, report = train_ranker(features, labels, at_us, CONFIG, feature_names=NAMES)
    assert report.validation_rows == 0
    assert "validation" not in report.curve


def test_a_monotone_ranker_never_falls_with_the_score() -> None:
    config = CONFIG.model_copy(update={"monotone_scores": True})
    booster, report = train_ranker(*rows(), config, feature_names=NAMES)
    probe = np.zeros((50, len(report.feature_names)), dtype=np.float32)
    probe[:, report.feature_names.index("score_forward")] = np.linspace(-3, 3, 50)
    assert np.all(np.diff(booster.inplace_predict(probe)) >= 0)


def test_figures_are_small_pictures() -> None:
    _, report = train_ranker(*rows(), CONFIG, feature_names=NAMES)
    figures = training_figures(report)
    assert set(figures) == {"training_curve", "feature_importance", "calibration", "score_distribution"}
    assert all(png.startswith(b"\x89PNG") and len(png) < 100_000 for png in figures.values())


def test_rows_that_cannot_teach_are_refused() -> None:
    features, labels, at_us = rows(100)
    with pytest.raises(OneClass, match="All 100 decisions"):
        train_ranker(features, np.ones(100), at_us, CONFIG, feature_names=NAMES)
    with pytest.raises(BadFeatures, match="shape"):
        train_ranker(features[:, 1:], labels, at_us, CONFIG, feature_names=NAMES)
    features[3, 0] = np.inf
    with pytest.raises(BadFeatures, match="useful"):
        train_ranker(features, labels, at_us, CONFIG, feature_names=NAMES)
    with pytest.raises(BadFeatures, match="No feature varies"):
        train_ranker(np.ones((100, 6), np.float32), labels, at_us, CONFIG, feature_names=NAMES)
