"""The ranker artefact: a model of P(like) for a directed pair, XGBoost's or of another kind in `ranker_models`.

Models match columns by position. So features are gathered by name, once, when the model is loaded against the names
that the caller will offer; a name that is not offered refuses the model instead of shifting its columns.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from registry.contracts import ArtifactKind, Manifest
from registry.errors import CorruptArtifact, FeatureSchemaMismatch, InvalidFeatures, UnsupportedArtifact
from registry.models.arrays import Floats, npy_writer, npz_writer, read_npy, read_npz
from registry.models.artifacts import FileWriter, verify_artifact, write_artifact
from registry.models.ranker_models import KINDS, Boosted, RankerModel, read_model
from registry.models.trees import Trees
from registry.scoring.list_policy import Aggregator, ForwardModel, ListPolicy, Order, combine

MODEL_FILE: Final = f"model{Boosted.suffix}"
"""The file of a ranker of XGBoost; those of other kinds end otherwise."""
_MODEL: Final = "model"
_FEATURES: Final = "features.json"
_CHOICE: Final = "choice"
_CHOICE_FEATURES: Final = "choice_features.json"
_JUDGED: Final = "judged.json"
_CANARY: Final = "canary.npz"
_REFERENCE: Final = "reference.npy"
ATTRIBUTES: Final = "attributes"
"""The parameter of the manifest that says which imported attribute owned which slot: name -> slot."""
_CANARY_ROWS: Final = 32
MISSING: Final = np.float32(-1e31)
"""What stands for NaN in rankers that learned it so: trees walk twice as fast over rows without holes."""
_NAN: Final = np.float32(np.nan)
__all__ = ["MISSING", "Aggregator", "ForwardModel", "ListPolicy", "Order", "Ranker", "combine", "filled"]


@dataclass(frozen=True)
class Ranker:
    """A model, the names of its columns in its own order, and where each stands in the offered order.

    `trees` are a booster's own, where they are simple enough to be walked without it.
    `reference` float32[m, k], where kept, holds each column's training values as m evenly spaced order statistics,
    missing ones last: later rows are compared with it, and no row in it is anybody's. `choice`, where kept, is the
    model of whom the requester chooses out of the candidates. `judged` is what the lists came to on held-out data.
    `attributes` says which imported attribute owned each slot when it was trained, for the names people read.
    """

    model: RankerModel
    feature_names: tuple[str, ...]
    offered_names: tuple[str, ...]
    gather: NDArray[np.int64]
    policy: ListPolicy
    canary_features: Floats
    canary_expected: Floats
    fills: bool = False
    trees: Trees | None = None
    reference: Floats | None = None
    choice: "Ranker | None" = None
    judged: Mapping[str, JsonValue] | None = None
    attributes: Mapping[int, str] = field(default_factory=dict)

    @property
    def order(self) -> Order:
        """Return which order is served."""
        return self.policy.order

    @property
    def booster(self) -> Any:
        """Return the `xgboost.Booster`; raises UnsupportedArtifact for a model of another kind."""
        if isinstance(self.model, Boosted):
            return self.model.booster
        raise UnsupportedArtifact(
            f"This needs a ranker of XGBoost, not one whose file is `{_MODEL}{self.model.suffix}`."
        )

    @classmethod
    def from_booster(cls, booster: Any, feature_names: Sequence[str], *, threads: int = 1, **given: Any) -> Self:
        """Wrap a trained `xgboost.Booster` whose columns are `feature_names`; the rest is given as to `of`."""
        booster.set_param({"nthread": threads})
        return cls.of(Boosted(booster), feature_names, **given)

    @classmethod
    def of(
        cls,
        model: RankerModel,
        feature_names: Sequence[str],
        *,
        policy: ListPolicy | None = None,
        canary_features: Floats | None = None,
        fills: bool = False,
        reference: Floats | None = None,
        choice: "Ranker | None" = None,
        judged: Mapping[str, JsonValue] | None = None,
    ) -> Self:
        """Wrap a trained model whose columns are `feature_names`.

        `canary_features` float32[m, k] (the first 32 rows are kept) travel with the model together with its answers,
        so that a reader on another machine can prove that it computes the same. `fills` says that the model was
        trained on `filled` rows and must be shown such rows.
        """
        names = tuple(feature_names)
        _check_names(model, names)
        rows = (
            np.empty((0, len(names)), dtype=np.float32) if canary_features is None else canary_features[:_CANARY_ROWS]
        )
        ranker = cls(
            model=model,
            feature_names=names,
            offered_names=names,
            gather=np.arange(len(names)),
            policy=policy or ListPolicy(),
            canary_features=np.ascontiguousarray(rows, dtype=np.float32),
            canary_expected=np.empty(0, dtype=np.float32),
            fills=fills,
            trees=_trees(model),
            reference=reference,
            choice=choice,
            judged=judged,
        )
        if not len(rows):
            return ranker
        return cls(**{**ranker.__dict__, "canary_expected": ranker.predict(ranker.canary_features)})

    def offered(self, feature_names: Sequence[str]) -> Self:
        """Return the same ranker for a caller who offers columns in the order of `feature_names`.

        Raises FeatureSchemaMismatch if a model needs a name that is not offered.
        """
        offered = tuple(feature_names)
        return replace(
            self,
            offered_names=offered,
            gather=_gathered(self.feature_names, offered),
            choice=None if self.choice is None else self.choice.offered(offered),
        )

    def predict(self, features: Floats) -> Floats:
        """Return P(like), float32[n], of float32[n, k] features in the offered order; NaN means missing.

        Raises InvalidFeatures for a wrong width, an infinite value or a row without a single value, and if the model
        itself answers with anything but a probability.
        """
        self._check_width(features)
        if not len(features):
            return np.empty(0, dtype=np.float32)
        if self.trees is None:
            answer = self.model.predict(self._matrix(features))
        else:
            rows = np.ascontiguousarray(features, dtype=np.float32)
            answer, refused = self.trees.predict(rows, self.gather, MISSING if self.fills else _NAN)
            if refused >= 0:
                self._matrix(features[refused : refused + 1])
        if answer.shape != (len(features),) or not ((answer >= 0.0) & (answer <= 1.0)).all():
            raise InvalidFeatures("The ranker answered with something that is not one probability per row.")
        return answer

    def explain(
        self, features: Floats, n_top: int = 5, *, named: Collection[str] | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return, for each row, the features that moved its score the most, with their signed log-odds.

        Of the features outside `named` nothing is said; without it, of all something.
        """
        self._check_width(features)
        matrix = self._matrix(features)
        if not len(matrix) or n_top <= 0:
            return [[] for _ in range(len(matrix))]
        contributions = self.model.contributions(matrix)
        told = [column for column, name in enumerate(self.feature_names) if named is None or name in named]
        contributions, names = contributions[:, told], [self.feature_names[column] for column in told]
        top = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :n_top]
        return [
            [(names[column], float(row[column])) for column in columns]
            for row, columns in zip(contributions, top, strict=True)
        ]

    def _check_width(self, features: Floats) -> None:
        if features.ndim != 2 or features.shape[1] != len(self.offered_names):
            raise InvalidFeatures(
                f"The feature matrix has shape {features.shape}, this ranker was loaded for "
                f"{len(self.offered_names)} columns."
            )

    def _matrix(self, features: Floats) -> Floats:
        """Return the rows as the model wants them; raises InvalidFeatures for those it must not be shown."""
        identity = self.feature_names == self.offered_names
        matrix = np.ascontiguousarray(features if identity else features.take(self.gather, axis=1), dtype=np.float32)
        if np.isinf(matrix).any():
            column = int(np.flatnonzero(np.isinf(matrix).any(axis=0))[0])
            raise InvalidFeatures(f"`{self.feature_names[column]}` is infinite: use NaN for what is not known.")
        bare = np.isnan(matrix[:, 0])  # only rows without a first feature can be without any
        if bare.any() and np.isnan(matrix[bare]).all(axis=1).any():
            raise InvalidFeatures("A row has no feature at all, so its score would say nothing: leave it out.")
        return filled(matrix) if self.fills else matrix

    def check_canary(self) -> str | None:
        """Score the rows that travelled with the model; return what is wrong, or None."""
        rows = self.canary_features
        if not len(rows):
            return None
        offered = np.full((len(rows), len(self.offered_names)), np.nan, dtype=np.float32)
        offered[:, self.gather] = rows
        worst = float(np.abs(self.predict(offered) - self.canary_expected).max())
        if worst > 1e-4:
            return f"its canary rows score {worst:.4f} away from what they scored when it was trained"
        return None

    def save(
        self,
        directory: Path,
        lineage: Mapping[str, str],
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Manifest:
        """Write the models, their column names and the canary rows; the policy is put in the parameters."""
        raw = self.model.to_bytes()
        names = _names_json(self.feature_names)
        files: dict[str, FileWriter] = {}
        if self.choice is not None:
            choice = self.choice.model.to_bytes()
            files[f"{_CHOICE}{self.choice.model.suffix}"] = lambda path: _write(path, choice)
            choice_names = _names_json(self.choice.feature_names)
            files[_CHOICE_FEATURES] = lambda path: _write(path, choice_names)
        if self.judged is not None:
            judged = json.dumps(self.judged, indent=2, sort_keys=True).encode()
            files[_JUDGED] = lambda path: _write(path, judged)
        return write_artifact(
            directory,
            ArtifactKind.RANKER,
            {
                f"{_MODEL}{self.model.suffix}": lambda path: _write(path, raw),
                _FEATURES: lambda path: _write(path, names),
                _CANARY: npz_writer({"features": self.canary_features, "expected": self.canary_expected}),
                **({_REFERENCE: npy_writer(self.reference)} if self.reference is not None else {}),
                **files,
            },
            parameters={
                **(parameters or {}),
                **self.policy.parameters(),
                "features": len(self.feature_names),
                "fills": self.fills,
            },
            metrics=metrics,
            lineage=lineage,
        )

    @classmethod
    def load(
        cls,
        directory: Path,
        feature_names: Sequence[str],
        expected_digest: str | None = None,
        *,
        threads: int = 1,
        verified: Manifest | None = None,
    ) -> Self:
        """Verify and read a ranker that will be offered columns in the order of `feature_names`.

        Raises FeatureSchemaMismatch if the model needs a name that is not offered.
        """
        manifest = verified or verify_artifact(directory, expected_digest)
        manifest.expect(ArtifactKind.RANKER)
        offered = tuple(feature_names)
        try:
            policy = ListPolicy.of(manifest.parameters)
        except ValueError as error:
            raise CorruptArtifact(f"`{directory}` has an unknown policy in its manifest: {error}.") from error
        fills = manifest.parameters.get("fills") is True
        choice = None
        if chosen_by := _model_file(manifest, _CHOICE):
            choice = cls._read(directory, (chosen_by, _CHOICE_FEATURES), offered, threads, policy, fills=fills)
        canary = read_npz(directory / _CANARY, {"features": (np.float32, 2), "expected": (np.float32, 1)})
        file = _model_file(manifest, _MODEL)
        if file is None:
            raise CorruptArtifact(f"`{directory}` names no file of a model that this version reads: train it again.")
        ranker = cls._read(directory, (file, _FEATURES), offered, threads, policy, fills=fills)
        return replace(
            ranker,
            canary_features=canary["features"],
            canary_expected=canary["expected"],
            reference=read_npy(directory / _REFERENCE, np.float32, 2) if _REFERENCE in manifest.files else None,
            choice=choice,
            attributes=_attributes(manifest),
            judged=_read_judged(directory / _JUDGED) if _JUDGED in manifest.files else None,
        )

    @classmethod
    def load_alone(cls, directory: Path, *, verified: Manifest | None = None) -> Self:
        """Verify and read the model of P(like) alone, which will be offered its own columns in its own order."""
        return cls.load_each(directory, verified=verified)[ForwardModel.LIKE]

    @classmethod
    def load_each(cls, directory: Path, *, verified: Manifest | None = None) -> dict[ForwardModel, Self]:
        """Verify and read each model of the artefact, which will be offered its own columns in its own order."""
        manifest = verified or verify_artifact(directory)
        names = _read_names(directory / _FEATURES)
        of_choice = _read_names(directory / _CHOICE_FEATURES) if _model_file(manifest, _CHOICE) else ()
        loaded = cls.load(directory, tuple(dict.fromkeys((*names, *of_choice))), verified=manifest)
        models = {ForwardModel.LIKE: replace(loaded, choice=None)}
        if loaded.choice is not None:
            models[ForwardModel.CHOICE] = replace(loaded, **loaded.choice.__dict__)
        return {name: model.offered(model.feature_names) for name, model in models.items()}

    @classmethod
    def _read(
        cls,
        directory: Path,
        files: tuple[str, str],
        offered: tuple[str, ...],
        threads: int,
        policy: ListPolicy,
        *,
        fills: bool,
    ) -> Self:
        """Read one model of the artefact and find its columns among those offered."""
        names = _read_names(directory / files[1])
        gather = _gathered(names, offered)
        model = read_model(directory / files[0], threads)
        _check_names(model, names)
        return cls(
            model=model,
            feature_names=names,
            offered_names=offered,
            gather=gather,
            policy=policy,
            canary_features=np.empty((0, len(names)), dtype=np.float32),
            canary_expected=np.empty(0, dtype=np.float32),
            fills=fills,
            trees=_trees(model),
        )


def _model_file(manifest: Manifest, stem: str) -> str | None:
    """Return the file of a model, whose ending says of what kind it is; None where the artefact has none."""
    return next((f"{stem}{suffix}" for suffix in KINDS if f"{stem}{suffix}" in manifest.files), None)


def _trees(model: RankerModel) -> Trees | None:
    return Trees.of(model.booster) if isinstance(model, Boosted) else None


def _attributes(manifest: Manifest) -> dict[int, str]:
    named = manifest.parameters.get(ATTRIBUTES)
    return {int(slot): name for name, slot in named.items() if isinstance(slot, int)} if isinstance(named, dict) else {}


def filled(features: Floats) -> Floats:
    """Return the features with MISSING in the place of NaN, a new float32[n, k]."""
    return np.where(np.isnan(features), MISSING, features)


def _gathered(names: tuple[str, ...], offered: tuple[str, ...]) -> NDArray[np.int64]:
    """Return where each name stands among those offered, int64[k]; raises FeatureSchemaMismatch."""
    where = {name: position for position, name in enumerate(offered)}
    if missing := [name for name in names if name not in where]:
        raise FeatureSchemaMismatch(
            f"The ranker needs {len(missing)} features that are not offered, `{missing[0]}` first: "
            "train it again on the present feature service."
        )
    return np.array([where[name] for name in names], dtype=np.int64)


def _check_names(model: RankerModel, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise FeatureSchemaMismatch("The ranker's feature names are not unique.")
    model.check_names(names)


def _names_json(names: tuple[str, ...]) -> bytes:
    return json.dumps(list(names), indent=2).encode()


def _read_judged(path: Path) -> dict[str, JsonValue]:
    try:
        told = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptArtifact(f"`{path}` is not JSON: train the ranker again.") from error
    if not isinstance(told, dict):
        raise CorruptArtifact(f"`{path}` does not hold figures by name: train the ranker again.")
    return told


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        names = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptArtifact(f"`{path}` is not JSON: build it again.") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CorruptArtifact(f"`{path}` is not a list of feature names: build it again.")
    return tuple(names)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
