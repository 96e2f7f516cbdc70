"""A ranker that holds LightGBM's trees: its own text, the same promises as the others."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact, FeatureSchemaMismatch, UnsupportedArtifact
from registry.models.artifacts import write_artifact
from registry.models.ranker import Ranker
from registry.models.ranker_models import LightGbm
from tests.releases import FEATURES

lightgbm = pytest.importorskip("lightgbm", reason="the extra `lightgbm` is not installed")
PARAMETERS = {"objective": "binary", "verbose": -1, "min_data_in_leaf": 5, "num_threads": 1}


def rows_and_labels() -> tuple[pd.DataFrame, "pd.Series[Any]"]:
    rng = np.random.default_rng(3)
    x = pd.DataFrame(rng.normal(size=(400, len(FEATURES))).astype(np.float32), columns=list(FEATURES))
    x.loc[::7, FEATURES[1]] = np.nan
    return x, (x[FEATURES[0]] > 0).astype(int)


def booster(**parameters: object) -> Any:
    return lightgbm.train(PARAMETERS | parameters, lightgbm.Dataset(*rows_and_labels()), num_boost_round=10)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker.of(LightGbm(booster()), FEATURES, canary_features=rows_and_labels()[0].to_numpy())


def test_it_answers_as_lightgbm_does_and_says_what_moved_the_answer(ranker: Ranker) -> None:
    x = rows_and_labels()[0].to_numpy()
    np.testing.assert_allclose(ranker.predict(x), ranker.model.booster.predict(x), rtol=1e-6)  # type: ignore[attr-defined]
    assert ranker.predict(np.eye(1, len(FEATURES), dtype=np.float32) * 2)[0] > 0.5
    assert {told[0][0] for told in ranker.explain(x[:20], 1)} == {FEATURES[0]}, "nothing else was learned"


def test_it_is_kept_as_text_and_answers_alike_wherever_its_columns_stand(ranker: Ranker, tmp_path: Path) -> None:
    manifest = ranker.save(tmp_path / "r", {"feature_schema": "f"})
    assert set(manifest.files) == {"model.txt", "features.json", "canary.npz"}
    read = Ranker.load(tmp_path / "r", FEATURES[::-1], manifest.digest)
    assert read.check_canary() is None
    x = rows_and_labels()[0].to_numpy()
    assert np.array_equal(read.predict(x[:, ::-1]), ranker.predict(x))
    assert read.model.to_bytes() == ranker.model.to_bytes()


def test_other_names_than_those_it_was_trained_on_are_refused() -> None:
    with pytest.raises(FeatureSchemaMismatch, match="names inside the model"):
        Ranker.of(LightGbm(booster()), FEATURES[::-1])
    with pytest.raises(FeatureSchemaMismatch, match="4 columns and 3 names"):
        Ranker.of(LightGbm(booster()), FEATURES[:3])


@pytest.mark.parametrize("broken", ["cut off", "of another objective", "no model"])
def test_what_is_no_whole_model_of_likes_is_refused_even_when_its_digest_holds(
    ranker: Ranker, tmp_path: Path, broken: str
) -> None:
    whole = ranker.model.to_bytes()
    content = {
        "cut off": whole[: len(whole) // 2],
        "of another objective": booster(objective="regression").model_to_string().encode(),
        "no model": b"duet\n",
    }[broken]
    ranker.save(tmp_path / "r", {})
    files = {name: (tmp_path / "r" / name).read_bytes() for name in ("features.json", "canary.npz")}
    files["model.txt"] = content
    write_artifact(
        tmp_path / "broken",
        ArtifactKind.RANKER,
        {key: lambda path, value=value: path.write_bytes(value) and None for key, value in files.items()},
    )
    with pytest.raises(CorruptArtifact, match="not a LightGBM model with the objective `binary`"):
        Ranker.load(tmp_path / "broken", FEATURES)


@pytest.mark.parametrize("missing", [ImportError("no lightgbm"), OSError("libgomp.so.1: no such file")])
def test_where_lightgbm_is_missing_it_says_what_to_install(
    ranker: Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: Exception
) -> None:
    ranker.save(tmp_path / "r", {})
    imported = builtins.__import__

    def without(name: str, *given: Any, **more: Any) -> Any:
        if name == "lightgbm":
            raise missing
        return imported(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedArtifact, match=r"install `duet\[lightgbm\]`"):
        Ranker.load(tmp_path / "r", FEATURES)
