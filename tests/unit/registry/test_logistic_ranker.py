"""A ranker that holds a logistic regression: plain JSON, the same promises as trees."""

import json
from pathlib import Path

import numpy as np
import pytest

from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact, FeatureSchemaMismatch, UnsupportedArtifact
from registry.models.artifacts import write_artifact
from registry.models.ranker import Ranker
from registry.models.ranker_models import Logistic
from tests.releases import FEATURES

ROWS = np.array([[1, 2, 30, 4], [3, np.nan, 10, 4]], dtype=np.float32)
CENTRE = [1.0, 2.0, 20.0, 4.0]


def ranker() -> Ranker:
    model = Logistic.of(intercept=0.5, coefficients=[2.0, 1.0, -1.0, 0.0], means=CENTRE, scales=[1.0, 1.0, 10.0, 1.0])
    return Ranker.of(model, FEATURES, canary_features=ROWS)


def test_the_probability_is_that_of_the_standardised_row_and_what_is_missing_moves_nothing() -> None:
    expected = 1 / (1 + np.exp(-np.array([0.5 - 1.0, 0.5 + 4.0 + 1.0])))
    np.testing.assert_allclose(ranker().predict(ROWS), expected, rtol=1e-6)
    first, second = ranker().explain(ROWS, 2)
    assert first[0] == ("age_gap", -1.0)
    assert second == [("score_forward", 4.0), ("age_gap", 1.0)]


def test_it_is_kept_as_json_and_answers_alike_wherever_its_columns_stand(tmp_path: Path) -> None:
    manifest = ranker().save(tmp_path / "r", {"feature_schema": "f"})
    assert set(manifest.files) == {"model.json", "features.json", "canary.npz"}
    assert json.loads((tmp_path / "r" / "model.json").read_text())["means"] == CENTRE
    read = Ranker.load(tmp_path / "r", FEATURES[::-1], manifest.digest)
    assert read.check_canary() is None
    assert np.array_equal(read.predict(ROWS[:, ::-1]), ranker().predict(ROWS))
    with pytest.raises(FeatureSchemaMismatch, match="`distance_km` first"):
        Ranker.load(tmp_path / "r", FEATURES[:-1])


def test_the_canary_tells_of_another_answer(tmp_path: Path) -> None:
    whole = ranker()
    other = Ranker(**{**whole.__dict__, "canary_expected": 1.0 - whole.canary_expected})
    assert "canary rows score" in str(other.check_canary())


def test_numbers_that_make_no_regression_are_refused() -> None:
    with pytest.raises(FeatureSchemaMismatch, match=r"one number of each kind a column, not coefficients \(2,\)"):
        Logistic.of(intercept=0.0, coefficients=[1, 2], means=[0], scales=[1, 1])
    with pytest.raises(FeatureSchemaMismatch, match="scale that is not above 0"):
        Logistic.of(intercept=0.0, coefficients=[1], means=[0], scales=[0])
    with pytest.raises(FeatureSchemaMismatch, match="4 columns and 3 names"):
        Ranker.of(ranker().model, FEATURES[:3])


@pytest.mark.parametrize("content", [b"{", b'{"model": "svm"}', b'{"intercept": 0, "coefficients": [1]}'])
def test_what_is_no_regression_is_refused_even_when_its_digest_holds(tmp_path: Path, content: bytes) -> None:
    ranker().save(tmp_path / "r", {})
    files = {name: (tmp_path / "r" / name).read_bytes() for name in ("features.json", "canary.npz")}
    files["model.json"] = content
    write_artifact(
        tmp_path / "broken",
        ArtifactKind.RANKER,
        {key: lambda path, value=value: path.write_bytes(value) and None for key, value in files.items()},
    )
    with pytest.raises(CorruptArtifact, match=r"model\.json` is not a logistic regression"):
        Ranker.load(tmp_path / "broken", FEATURES)


def test_it_has_no_booster() -> None:
    with pytest.raises(UnsupportedArtifact, match=r"not one whose file is `model\.json`"):
        _ = ranker().booster
