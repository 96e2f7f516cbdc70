"""Versions as MLflow's own users load them: pyfunc and xgboost, by version and by stage, without pickle."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import mlflow
import mlflow.lightgbm
import mlflow.pyfunc
import mlflow.xgboost
import numpy as np
import pandas as pd
import pytest
import xgboost

from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from registry.contracts import MODEL_NAMES, PRODUCTION, ArtifactKind
from registry.mlflow.flavours import write_flavours
from registry.mlflow.logged import MlflowStore
from registry.mlflow.rest import MlflowRest
from registry.models.embedding import Embedding
from registry.models.ranker import Ranker
from registry.models.ranker_models import LightGbm
from tests.releases import FEATURES, write_release

CODE = "duet_model.py"

# MLflow says so on every load by stage.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*stages are deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*stages will be removed:FutureWarning"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[ArtifactKind, Path]:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def uris(
    empty_mlflow: Endpoints, written: dict[ArtifactKind, Path], monkeypatch: pytest.MonkeyPatch
) -> dict[ArtifactKind, str]:
    """The addresses of the three versions; MLflow's own client looks at this server and unpickles nothing."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(empty_mlflow.mlflow_url))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    store = MlflowStore(str(empty_mlflow.mlflow_url), "flavours")
    return {kind: f"models:/{MODEL_NAMES[kind]}/{store.log_version(kind, path)}" for kind, path in written.items()}


def frame(rows: int = 5) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(7).normal(size=(rows, len(FEATURES))), columns=list(FEATURES))


def test_the_ranker_answers_in_pyfunc_and_in_xgboost_as_in_duet(
    uris: dict[ArtifactKind, str], empty_mlflow: Endpoints, written: dict[ArtifactKind, Path]
) -> None:
    features = frame()
    features.iloc[0, 1] = np.nan
    expected = Ranker.load(written[ArtifactKind.RANKER], FEATURES).predict(features.to_numpy(np.float32))
    model = mlflow.pyfunc.load_model(uris[ArtifactKind.RANKER])
    assert model.metadata.signature.inputs.input_names() == list(FEATURES)
    assert model.predict(features[list(reversed(FEATURES))]) == pytest.approx(expected)
    assert model.predict(model.input_example).shape == (3,)
    with MlflowRest(str(empty_mlflow.mlflow_url)) as rest:
        rest.transition_stage(ArtifactKind.RANKER, int(uris[ArtifactKind.RANKER].rpartition("/")[2]), PRODUCTION)
    booster = mlflow.xgboost.load_model(f"models:/{MODEL_NAMES[ArtifactKind.RANKER]}/{PRODUCTION}")
    assert booster.predict(xgboost.DMatrix(features)) == pytest.approx(expected)
    with pytest.raises(mlflow.MlflowException, match="age_gap"):
        model.predict(features.drop(columns="age_gap"))


def test_a_ranker_of_lightgbm_answers_in_pyfunc_and_in_lightgbm_as_in_duet(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="the extra `lightgbm` is not installed")
    features = frame(200)
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1}
    learned = lightgbm.Dataset(features, features[FEATURES[0]] > 0)
    ranker = Ranker.of(LightGbm(lightgbm.train(parameters, learned, 5)), FEATURES)
    manifest = ranker.save(tmp_path / "native", {"feature_schema": "f"})
    (tmp_path / "logged").mkdir()
    write_flavours(ArtifactKind.RANKER, tmp_path / "native", manifest, tmp_path / "logged")
    logged = shutil.copytree(tmp_path / "native", tmp_path / "logged" / "model", dirs_exist_ok=True)
    expected = ranker.predict(features.to_numpy(np.float32))
    assert mlflow.lightgbm.load_model(str(logged)).predict(features, num_threads=1) == pytest.approx(expected)
    assert mlflow.pyfunc.load_model(str(logged)).predict(features) == pytest.approx(expected)
    assert "lightgbm==" in (logged / "requirements.txt").read_text()


def test_the_embedding_turns_ids_into_factors_and_the_index_ids_or_factors_into_neighbours(
    uris: dict[ArtifactKind, str], written: dict[ArtifactKind, Path]
) -> None:
    people = pd.DataFrame({"user_id": [7, 8, 999]})
    embedding = mlflow.pyfunc.load_model(uris[ArtifactKind.EMBEDDING])
    factors = embedding.predict(people)
    chooser, chosen = Embedding.load(written[ArtifactKind.EMBEDDING]).vectors([7, 8])
    np.testing.assert_allclose(np.array(factors["chooser"][:2].tolist()), chooser)
    np.testing.assert_allclose(np.array(factors["chosen"][:2].tolist()), chosen)
    assert factors["chooser"][2] is None
    assert list(embedding.input_example["user_id"]) == [1, 2, 3]

    index = mlflow.pyfunc.load_model(uris[ArtifactKind.INDEX])
    by_id = index.predict(people, params={"n": 5})
    assert [{person % 2 for person in row} for row in by_id["neighbours"]] == [{1}, {0}, set()]
    assert [len(row) for row in by_id["neighbours"]] == [5, 5, 0]
    assert 7 not in by_id["neighbours"][0]
    by_factors = index.predict(factors, params={"n": 5})
    assert list(by_factors["neighbours"]) == list(by_id["neighbours"])
    anonymous = index.predict(factors[["chooser", "chosen"]][:1], params={"n": 5})
    assert {person % 2 for person in anonymous["neighbours"][0]} == {1}


def test_a_version_says_what_it_needs_and_serving_fetches_none_of_it(
    uris: dict[ArtifactKind, str], empty_mlflow: Endpoints, tmp_path: Path
) -> None:
    for kind, uri in uris.items():
        every = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / kind.value)))
        beside = {"MLmodel", CODE, "requirements.txt", "input_example.json"}
        assert beside <= {path.name for path in every.iterdir()}
        assert not [path for path in every.rglob("*") if path.suffix in {".pkl", ".pickle", ".joblib"}]
        assert f"model_code_path: {CODE}" in (every / "MLmodel").read_text()
        assert "xgboost==" in (every / "requirements.txt").read_text()
        native = tmp_path / f"native-{kind.value}"
        with MlflowRest(str(empty_mlflow.mlflow_url)) as rest:
            manifest = rest.download(kind, int(uri.rpartition("/")[2]), native)
        assert {path.name for path in native.iterdir()} == {*manifest.files, "manifest.json"}


def test_a_changed_file_is_refused_by_the_flavour_too(uris: dict[ArtifactKind, str], tmp_path: Path) -> None:
    every = Path(mlflow.artifacts.download_artifacts(uris[ArtifactKind.RANKER], dst_path=str(tmp_path)))
    model = every / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(Exception, match=r"model\.ubj` has sha256"):
        mlflow.pyfunc.load_model(str(every))


def test_a_pickled_model_is_refused_where_the_setting_of_these_tests_holds(
    uris: dict[ArtifactKind, str], tmp_path: Path
) -> None:
    every = Path(mlflow.artifacts.download_artifacts(uris[ArtifactKind.RANKER], dst_path=str(tmp_path)))
    described = mlflow.models.Model.load(str(every))
    flavour = described.flavors["python_function"]
    flavour.pop("model_code_path")
    flavour["python_model"] = "python_model.pkl"
    flavour["loader_module"] = "mlflow.pyfunc.model"
    (every / "python_model.pkl").write_bytes(b"never read")
    described.save(str(every / "MLmodel"))
    with pytest.raises(mlflow.MlflowException, match="pickle is disallowed"):
        mlflow.pyfunc.load_model(str(every))


@pytest.mark.long
def test_mlflow_serves_the_ranker(
    uris: dict[ArtifactKind, str], written: dict[ArtifactKind, Path], tmp_path: Path
) -> None:
    features = frame()
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uris[ArtifactKind.RANKER], "-p", str(port)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow looks for uvicorn there
    log = tmp_path / "serve.log"
    with log.open("wb") as said:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "-h", "127.0.0.1"],
            env={**os.environ, "PATH": path},
            stdout=said,
            stderr=said,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        while server.poll() is None and not _answers(f"{url}/ping"):
            pass
        assert server.poll() is None, log.read_text()
        body: dict[str, Any] = {"dataframe_split": features.to_dict("split")}
        answer = httpx.post(f"{url}/invocations", json=body, timeout=60).raise_for_status().json()
    finally:
        server.terminate()
        server.wait()
    expected = Ranker.load(written[ArtifactKind.RANKER], FEATURES).predict(features.to_numpy(np.float32))
    assert answer["predictions"] == pytest.approx(expected.tolist())


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).is_success
    except httpx.HTTPError:
        return False
