"""Wherever a person reads a feature, an imported attribute has the name of its column and no number of a slot."""

from dataclasses import replace

import dagster as dg
import numpy as np

from feature_repo.layout import RANKING_FEATURES
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.learn import Learned
from pipelines.ranking.tables import FeatureTables, named_importance
from pipelines.ranking.train import TrainingReport, train_ranker
from pipelines.release.measure import moved_most
from pipelines.upkeep.drift.measure import drift_of_features
from registry.models.ranker import Ranker
from tests.releases import make_ranker

NAMES = ("candidate_attribute_06", "candidate_attribute_07", "attribute_gap_06", "distance_km")
OWNERS = {6: "height"}
HEIGHT = "candidate_attribute_height"


def learned() -> tuple[Ranker, TrainingReport]:
    """Learn likes of the tall where slot 7 has no owner, and of the distance every row says the same."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, len(NAMES))).astype(np.float32)
    features[:, 1], features[:, 2], features[:, 3] = np.nan, np.nan, 3.0
    labels = (features[:, 0] > 0).astype(np.float32)
    config = RankerConfig(rounds=5, threads=1)
    _, report = train_ranker(features, labels, np.arange(400), config, feature_names=NAMES)
    return replace(make_ranker(feature_names=NAMES), attributes=OWNERS), report


def test_the_tables_of_a_ranker_name_attributes_and_say_why_a_column_was_dropped() -> None:
    ranker, report = learned()
    tables = FeatureTables.of(report, Learned(ranker, report, report), OWNERS)
    assert list(named_importance(report, OWNERS)) == [HEIGHT]
    assert (list(tables.importance), list(tables.choices)) == ([HEIGHT], [HEIGHT])
    dropped = {"attribute_gap_height": "empty: no row has a value", "distance_km": "constant: every row has 3"}
    assert tables.dropped == dropped, "a slot that no attribute owns is nobody's column"
    shown, files = tables.shown(), tables.files()
    assert isinstance(shown["dropped"], dg.TableMetadataValue)
    assert {row.data["feature"]: row.data["why"] for row in shown["dropped"].records} == dropped
    for name in ("importance", "importance_of_choices"):
        found = shown[name]
        assert isinstance(found, dg.TableMetadataValue)
        assert [row.data["feature"] for row in found.records] == [HEIGHT]
    assert files["dropped_features.csv"].splitlines() == ["feature,why", *(f"{k},{v}" for k, v in dropped.items())]
    for name in ("feature_importance.csv", "choice_importance.csv"):
        assert files[name].splitlines()[1].startswith(f"{HEIGHT},")


def test_a_ranker_that_learned_no_choices_has_no_importance_of_them() -> None:
    ranker, report = learned()
    tables = FeatureTables.of(report, Learned(ranker, report, None), OWNERS)
    assert tables.shown()["importance_of_choices"] == dg.MetadataValue.text("no rows")


def test_drift_of_features_is_told_by_the_names_of_attributes() -> None:
    ranker = replace(make_ranker(feature_names=NAMES), attributes=OWNERS)
    then = np.zeros((50, len(RANKING_FEATURES)), dtype=np.float32)
    now = then.copy()
    now[:, RANKING_FEATURES.index("candidate_attribute_06")] = 1.0
    found = drift_of_features(ranker, then, now)
    assert next(iter(found)) == HEIGHT
    assert set(found) == {HEIGHT, "candidate_attribute_07", "attribute_gap_height", "distance_km"}


def test_the_gate_says_by_its_name_which_attribute_moved_most() -> None:
    ranker = replace(make_ranker(feature_names=NAMES), attributes=OWNERS)
    before, now = (np.zeros((50, len(NAMES)), dtype=np.float32) for _ in range(2))
    now[:, 0] = 1.0
    found = moved_most(replace(ranker, reference=now), replace(ranker, reference=before))
    assert not isinstance(found, str)
    assert found.value > 1
    assert found.note == f"`{HEIGHT}` moved most"
