"""The ranker: columns by name, probabilities or nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xgboost

from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact, FeatureSchemaMismatch, InvalidFeatures
from registry.models.artifacts import write_artifact
from registry.models.ranker import Aggregator, ListPolicy, Order, Ranker, combine, filled
from tests.releases import FEATURES, make_ranker


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranker") / "r"
    make_ranker().save(directory, {"feature_schema": "f"}, {"rounds": 8}, {"auc": 0.9})
    return directory


def features(n: int = 50) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, len(FEATURES))).astype(np.float32)


def test_columns_are_gathered_by_name_whatever_the_offered_order(saved: Path) -> None:
    rows = features()
    expected = make_ranker().predict(rows)
    offered = ("unused", *reversed(FEATURES), "also_unused")
    shuffled = np.full((len(rows), len(offered)), 99.0, np.float32)
    shuffled[:, 1:5] = rows[:, ::-1]
    assert np.array_equal(Ranker.load(saved, offered).predict(shuffled), expected)


def test_a_ranker_that_learned_from_filled_rows_is_shown_filled_rows(tmp_path: Path) -> None:
    rows = features(200)
    rows[::3, 1] = np.nan
    matrix = xgboost.DMatrix(filled(rows), (np.nan_to_num(rows[:, 1], nan=2.0) > 0.5), feature_names=list(FEATURES))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1}, matrix, 20)
    Ranker.from_booster(booster, FEATURES, fills=True).save(tmp_path / "r", {"feature_schema": "f"})
    answer = Ranker.load(tmp_path / "r", FEATURES).predict(rows)
    assert answer[::3].min() > 0.5
    assert np.isnan(rows[::3, 1]).all(), "the caller's rows stay as they were"


def test_a_feature_that_is_not_offered_refuses_the_ranker(saved: Path) -> None:
    with pytest.raises(FeatureSchemaMismatch, match="`distance_km` first"):
        Ranker.load(saved, FEATURES[:-1])


def test_probability_grows_with_the_feature_that_matters(saved: Path) -> None:
    rows = np.zeros((2, 4), np.float32)
    rows[:, 0] = [-2.0, 2.0]
    low, high = Ranker.load(saved, FEATURES).predict(rows)
    assert 0.0 <= low < 0.3
    assert 0.7 < high <= 1.0


def test_a_row_scores_the_same_alone_and_in_a_batch(saved: Path) -> None:
    ranker, rows = Ranker.load(saved, FEATURES), features()
    assert np.array_equal(np.concatenate([ranker.predict(row[None]) for row in rows]), ranker.predict(rows))
    assert ranker.predict(rows[:0]).shape == (0,)


def test_missing_values_are_scored_but_an_empty_row_is_not(saved: Path) -> None:
    ranker, rows = Ranker.load(saved, FEATURES), features()
    rows[0, 1:] = np.nan
    assert np.isfinite(ranker.predict(rows)).all()
    rows[0] = np.nan
    with pytest.raises(InvalidFeatures, match="no feature at all"):
        ranker.predict(rows)


def test_an_infinite_feature_is_named(saved: Path) -> None:
    rows = features()
    rows[3, 2] = np.inf
    with pytest.raises(InvalidFeatures, match="`age_gap` is infinite"):
        Ranker.load(saved, FEATURES).predict(rows)


@pytest.mark.parametrize("shape", [(5, 3), (5, 5), (4,)], ids=str)
def test_a_matrix_of_another_width_is_refused(saved: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidFeatures, match="shape"):
        Ranker.load(saved, FEATURES).predict(np.zeros(shape, np.float32))


def test_an_answer_that_is_no_probability_is_refused() -> None:
    rows = features()
    matrix = xgboost.DMatrix(rows, rows[:, 0] * 100, feature_names=list(FEATURES))
    ranker = Ranker.from_booster(xgboost.train({"objective": "reg:squarederror"}, matrix, 3), FEATURES)
    with pytest.raises(InvalidFeatures, match="not one probability per row"):
        ranker.predict(rows)


def test_the_explanation_names_what_moved_the_score(saved: Path) -> None:
    rows = np.zeros((2, 4), np.float32)
    rows[:, 0] = [-2.0, 2.0]
    down, up = Ranker.load(saved, FEATURES).explain(rows, 2)
    assert down[0][0] == up[0][0] == "score_forward"
    assert down[0][1] < 0 < up[0][1]
    assert len(up) == 2
    assert Ranker.load(saved, FEATURES).explain(rows, 0) == [[], []]


def test_names_and_columns_must_agree() -> None:
    booster = make_ranker().booster
    with pytest.raises(FeatureSchemaMismatch, match="4 columns and 3 names"):
        Ranker.from_booster(booster, FEATURES[:3])
    with pytest.raises(FeatureSchemaMismatch, match="inside the model"):
        Ranker.from_booster(booster, FEATURES[::-1])
    with pytest.raises(FeatureSchemaMismatch, match="not unique"):
        Ranker.from_booster(booster, ("a", "a", "b", "c"))


def test_the_order_that_won_travels_with_the_model(tmp_path: Path) -> None:
    model = make_ranker()
    losing = Ranker.from_booster(model.booster, FEATURES, policy=ListPolicy(Order.RETRIEVAL, weight=0.7))
    losing.save(tmp_path / "r", {})
    assert Ranker.load(tmp_path / "r", FEATURES).policy == ListPolicy(Order.RETRIEVAL, weight=0.7)


def test_the_canary_rows_score_as_they_did(saved: Path) -> None:
    ranker = Ranker.load(saved, ("x", *FEATURES))
    assert ranker.check_canary() is None
    other = Ranker(**{**ranker.__dict__, "canary_expected": 1.0 - ranker.canary_expected})
    assert "canary rows score" in str(other.check_canary())


def test_equal_models_give_equal_digests(tmp_path: Path) -> None:
    assert make_ranker().save(tmp_path / "a", {}).digest == make_ranker().save(tmp_path / "b", {}).digest


@pytest.mark.parametrize("cut", [0, 1, 100, 1000])
def test_a_truncated_model_is_refused_before_xgboost_sees_it(saved: Path, tmp_path: Path, cut: int) -> None:
    damaged = shutil.copytree(saved, tmp_path / "damaged")
    (damaged / "model.ubj").write_bytes((saved / "model.ubj").read_bytes()[:cut])
    with pytest.raises(CorruptArtifact, match=r"model\.ubj"):
        Ranker.load(damaged, FEATURES)


def test_what_is_not_a_model_is_refused_even_when_its_digest_holds(saved: Path, tmp_path: Path) -> None:
    files = {name: (saved / name).read_bytes() for name in ("model.ubj", "features.json", "canary.npz")}
    for number, (name, content) in enumerate(
        [("model.ubj", b"rubbish"), ("features.json", b"{"), ("features.json", b"[1]")]
    ):
        broken = {**files, name: content}
        write_artifact(
            tmp_path / str(number),
            ArtifactKind.RANKER,
            {key: lambda path, value=value: path.write_bytes(value) and None for key, value in broken.items()},
        )
        with pytest.raises(CorruptArtifact, match=name.replace(".", r"\.")):
            Ranker.load(tmp_path / str(number), FEATURES)


@pytest.mark.parametrize(
    ("aggregator", "expected"),
    [("product", 0.18), ("harmonic", 0.4), ("min", 0.3), ("geometric", 0.42426407)],
)
def test_two_probabilities_become_one_score(aggregator: str, expected: float) -> None:
    forward, backward = np.array([0.6, 0.0], np.float32), np.array([0.3, 0.0], np.float32)
    np.testing.assert_allclose(combine(forward, backward, aggregator)[0], expected, rtol=1e-5)
    assert combine(forward, backward, Aggregator(aggregator))[1] == 0.0
