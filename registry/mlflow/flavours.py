"""MLflow's view of an artefact: what `mlflow.pyfunc` and `mlflow.xgboost` need beside the native files.

The files written here stand beside the manifest, not in it: Duet fetches and reads only what the manifest names, so
serving and pipelines never run them. A model is loaded from code, which reads the native files with Duet's own readers
after their sha256 was verified. Nothing is pickled.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

from registry.contracts import ArtifactKind, Manifest
from registry.errors import InvalidQuery
from registry.models.arrays import Floats, Ids
from registry.models.artifacts import read_manifest
from registry.models.embedding import Embedding, query_vectors
from registry.models.item_index import MAX_N, ItemIndex
from registry.models.ranker import MODEL_FILE, Ranker
from registry.models.ranker_models import LightGbm

Answer = Callable[[pd.DataFrame, Mapping[str, Any]], Any]

_CODE_NAME: Final = "duet_model.py"
_CODE: Final = '''"""Run this artefact in `mlflow.pyfunc`, where the packages of Duet can be imported."""

from pathlib import Path

from mlflow.models import set_model

from registry.mlflow.flavours import FlavouredModel

set_model(FlavouredModel(Path(__file__).parent))
'''
_REQUIREMENTS: Final = ("faiss-cpu", "mlflow", "numba", "numpy", "pandas", "pydantic", "pydantic-settings")
"""What Duet's readers import; Duet itself is on no package index and must be installed beside them."""
_LIGHTGBM_FILE: Final = f"model{LightGbm.suffix}"
_EXAMPLE_ROWS: Final = 3
_FACTORS: Final = Array(DataType.double)
_INDEX_PARAMETERS: Final = ParamSchema([ParamSpec("n", DataType.long, 10), ParamSpec("weight", DataType.double, 0.5)])


class FlavouredModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow ships no types that mypy reads
    """What `mlflow.pyfunc` runs: the artefact in `directory`, whose kind its manifest tells."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load_context(self, context: Any) -> None:  # noqa: ARG002 the signature is MLflow's
        """Verify and read the native files."""
        self._answer = _READERS[read_manifest(self._directory).kind](self._directory)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Answer a frame with the columns of the model's signature."""
        return self._answer(model_input, params or {})


def write_flavours(kind: ArtifactKind, directory: Path, manifest: Manifest, folder: Path) -> None:
    """Write MLmodel, code, input example and requirements of the verified artefact in `directory` to `folder`/model."""
    code = folder / _CODE_NAME
    code.write_text(_CODE)
    signature, example = _DESCRIBERS[kind](directory, manifest)
    target = folder / "model"
    mlflow.pyfunc.save_model(
        target,
        python_model=str(code),
        signature=signature,
        input_example=example,
        pip_requirements=[
            *(f"{name}=={version(name)}" for name in _REQUIREMENTS),
            f"xgboost=={_xgboost_version()}",
            *([f"lightgbm=={version('lightgbm')}"] if _LIGHTGBM_FILE in manifest.files else []),
        ],
        metadata={"digest": manifest.digest, "kind": kind.value},
    )
    model = Model.load(str(target))
    # MLflow notes where the code lay on this machine and reads only the last part of it.
    model.flavors[mlflow.pyfunc.FLAVOR_NAME]["model_code_path"] = _CODE_NAME
    model.model_size_bytes = sum(entry.size for entry in manifest.files.values())
    if kind is ArtifactKind.RANKER and MODEL_FILE in manifest.files:
        model.add_flavor(
            "xgboost",
            xgb_version=_xgboost_version(),
            data=MODEL_FILE,
            model_class="xgboost.core.Booster",
            model_format="ubj",
        )
    if kind is ArtifactKind.RANKER and _LIGHTGBM_FILE in manifest.files:
        model.add_flavor(
            "lightgbm", lgb_version=version("lightgbm"), data=_LIGHTGBM_FILE, model_class="lightgbm.basic.Booster"
        )
    model.save(str(target / "MLmodel"))


def _xgboost_version() -> str:
    """Return the version of XGBoost, whichever of its builds is installed: `xgboost` or `xgboost-cpu`."""
    import xgboost

    return str(xgboost.__version__)


def _describe_ranker(directory: Path, manifest: Manifest) -> tuple[ModelSignature, pd.DataFrame]:
    ranker = Ranker.load_alone(directory, verified=manifest)
    names = list(ranker.feature_names)
    rows = ranker.canary_features[:_EXAMPLE_ROWS]
    example = pd.DataFrame(rows if len(rows) else np.zeros((1, len(names))), columns=names, dtype=np.float64)
    inputs = Schema([ColSpec(DataType.double, name) for name in names])
    return ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.float32), (-1,))])), example


def _describe_embedding(directory: Path, manifest: Manifest) -> tuple[ModelSignature, pd.DataFrame]:
    ids = Embedding.load(directory, verified=manifest).user_ids
    factors = [ColSpec(_FACTORS, name, required=False) for name in ("chooser", "chosen")]
    outputs = Schema([ColSpec(DataType.long, "user_id"), *factors])
    return ModelSignature(Schema([ColSpec(DataType.long, "user_id")]), outputs), _people(ids)


def _describe_index(directory: Path, manifest: Manifest) -> tuple[ModelSignature, pd.DataFrame]:
    ids = ItemIndex.load(directory, verified=manifest).user_ids
    factors = [ColSpec(_FACTORS, name, required=False) for name in ("chooser", "chosen")]
    inputs = Schema([ColSpec(DataType.long, "user_id", required=False), *factors])
    outputs = Schema([ColSpec(Array(DataType.long), "neighbours"), ColSpec(_FACTORS, "scores")])
    return ModelSignature(inputs, outputs, _INDEX_PARAMETERS), _people(ids)


def _people(ids: Ids) -> pd.DataFrame:
    return pd.DataFrame({"user_id": np.array(ids[:_EXAMPLE_ROWS] if len(ids) else [1], dtype=np.int64)})


def _read_ranker(directory: Path) -> Answer:
    ranker = Ranker.load_alone(directory)

    def answer(frame: pd.DataFrame, _: Mapping[str, Any]) -> Floats:
        return ranker.predict(frame[list(ranker.feature_names)].to_numpy(dtype=np.float32))

    return answer


def _read_embedding(directory: Path) -> Answer:
    embedding = Embedding.load(directory)

    def answer(frame: pd.DataFrame, _: Mapping[str, Any]) -> pd.DataFrame:
        ids = frame["user_id"].to_numpy(dtype=np.int64)
        known = embedding.known(ids)
        told = {
            name: [row.tolist() if there else None for row, there in zip(factors, known, strict=True)]
            for name, factors in zip(("chooser", "chosen"), embedding.vectors(ids), strict=True)
        }
        return pd.DataFrame({"user_id": ids, **told})

    return answer


def _read_index(directory: Path) -> Answer:
    index = ItemIndex.load(directory)

    def answer(frame: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
        n, weight = int(params.get("n", 10)), float(params.get("weight", 0.5))
        rows = [_neighbours(index, row, n, weight) for row in frame.to_dict("records")]
        return pd.DataFrame(rows, columns=["neighbours", "scores"])

    return answer


def _neighbours(index: ItemIndex, row: Mapping[Any, Any], n: int, weight: float) -> tuple[list[int], list[float]]:
    """Return ids and scores of the best people for a row of factors or else of an id; none for an unknown id."""
    own = row.get("user_id")
    own = -1 if own is None or pd.isna(own) else int(own)
    chooser, chosen = row.get("chooser"), row.get("chosen")
    if not isinstance(chooser, list | np.ndarray) or not isinstance(chosen, list | np.ndarray):
        if own < 0:
            raise InvalidQuery("A row has neither a `user_id` nor `chooser` and `chosen`: give one of them.")
        position = index.positions(np.array([own], dtype=np.int64))
        if position[0] < 0:
            return [], []
        # The index holds a person as the one who is chosen first, and asks as the one who chooses first.
        chosen, chooser = np.split(index.vectors(position)[0], 2)
    p, q = (np.asarray(side, dtype=np.float32).reshape(1, -1) for side in (chooser, chosen))
    ids, scores = index.search(query_vectors(p, q, weight)[0], min(n + (own >= 0), MAX_N))
    others = np.flatnonzero(ids != own)[:n]
    return ids[others].tolist(), scores[others].tolist()


_READERS: Final = {
    ArtifactKind.EMBEDDING: _read_embedding,
    ArtifactKind.INDEX: _read_index,
    ArtifactKind.RANKER: _read_ranker,
}
_DESCRIBERS: Final = {
    ArtifactKind.EMBEDDING: _describe_embedding,
    ArtifactKind.INDEX: _describe_index,
    ArtifactKind.RANKER: _describe_ranker,
}
