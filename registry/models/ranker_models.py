"""The models a ranker can hold, each in its library's own file: trees of XGBoost or LightGBM, a regression as JSON.

A ranker gathers columns, refuses what must not be scored and keeps the canary; a model only turns rows into
probabilities, says what moved each of them, and writes itself. Another kind is one more class here and in `KINDS`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from registry.errors import CorruptArtifact, FeatureSchemaMismatch, UnsupportedArtifact
from registry.models.arrays import Floats

MAX_MODEL_BYTES: Final = 2**30
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RankerModel(Protocol):
    """What a ranker asks of its model; float32[n, k] rows come in the order of the ranker's feature names."""

    @property
    def suffix(self) -> str:
        """Return the ending of the model's file, which says how it is read."""

    def check_names(self, names: tuple[str, ...]) -> None:
        """Raise FeatureSchemaMismatch if these are not the names of the model's columns."""

    def predict(self, rows: Floats) -> Floats:
        """Return P(like), float32[n]; NaN means missing."""

    def contributions(self, rows: Floats) -> Floats:
        """Return by how much each column moved the log-odds, float32[n, k]."""

    def to_bytes(self) -> bytes:
        """Return the file, the same for the same model."""


@dataclass(frozen=True)
class Boosted:
    """An `xgboost.Booster`, in XGBoost's own UBJSON."""

    booster: Any
    suffix: ClassVar[str] = ".ubj"

    def check_names(self, names: tuple[str, ...]) -> None:
        """Raise FeatureSchemaMismatch if these are not the names of the booster's columns."""
        _check_width(self.booster.num_features(), names)
        own = self.booster.feature_names
        if own is not None and tuple(own) != names:
            raise FeatureSchemaMismatch(
                "The names inside the model are not those beside it: they were not saved together."
            )

    def predict(self, rows: Floats) -> Floats:
        """Return P(like), float32[n]."""
        return np.asarray(self.booster.inplace_predict(rows, validate_features=False), dtype=np.float32)

    def contributions(self, rows: Floats) -> Floats:
        """Return XGBoost's own contributions (SHAP values), float32[n, k]."""
        import xgboost

        matrix = xgboost.DMatrix(rows, feature_names=self.booster.feature_names)
        return np.asarray(self.booster.predict(matrix, pred_contribs=True)[:, :-1])

    def to_bytes(self) -> bytes:
        """Return XGBoost's UBJSON."""
        # save_raw leaves out nothing that predicts and, unlike save_model, the thread count is not part of it.
        return bytes(self.booster.save_raw(raw_format="ubj"))

    @classmethod
    def read(cls, path: Path, threads: int) -> Self:
        """Read a file with XGBoost's own reader; raises CorruptArtifact."""
        import xgboost

        booster = xgboost.Booster(params={"nthread": threads})
        try:
            booster.load_model(str(path))
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise CorruptArtifact(f"`{path}` is not an XGBoost model: train it again.") from error
        booster.set_param({"nthread": threads})
        return cls(booster)


@dataclass(frozen=True)
class LightGbm:
    """A `lightgbm.Booster` with the objective `binary`, in LightGBM's own text; needs `duet[lightgbm]`."""

    booster: Any
    threads: int = 1
    suffix: ClassVar[str] = ".txt"

    def check_names(self, names: tuple[str, ...]) -> None:
        """Raise FeatureSchemaMismatch if these are not the names of the booster's columns."""
        _check_width(self.booster.num_feature(), names)
        if tuple(self.booster.feature_name()) != names:
            raise FeatureSchemaMismatch(
                "The names inside the model are not those beside it: train it on a frame that names its columns."
            )

    def predict(self, rows: Floats) -> Floats:
        """Return P(like), float32[n]."""
        return np.asarray(self.booster.predict(rows, num_threads=self.threads), dtype=np.float32)

    def contributions(self, rows: Floats) -> Floats:
        """Return LightGBM's own contributions (SHAP values), float32[n, k]."""
        told = self.booster.predict(rows, pred_contrib=True, num_threads=self.threads)
        return np.asarray(told, dtype=np.float32)[:, :-1]

    def to_bytes(self) -> bytes:
        """Return LightGBM's text."""
        return str(self.booster.model_to_string()).encode()

    @classmethod
    def read(cls, path: Path, threads: int) -> Self:
        """Read a file with LightGBM's own reader; raises CorruptArtifact, and UnsupportedArtifact without LightGBM."""
        try:
            import lightgbm
        except (ImportError, OSError) as error:  # its library needs libgomp of the system
            raise UnsupportedArtifact(
                f"`{path}` needs LightGBM, which cannot be loaded: install `duet[lightgbm]` and the library libgomp."
            ) from error
        text = path.read_text()
        # LightGBM ends the whole process over a file that was cut off, so its last line is looked for first.
        if not text.startswith("tree\n") or "\nend of trees\n" not in text or "\nobjective=binary" not in text:
            raise CorruptArtifact(f"`{path}` is not a LightGBM model with the objective `binary`: train it again.")
        try:
            return cls(lightgbm.Booster(model_str=text), threads)
        except lightgbm.basic.LightGBMError as error:
            raise CorruptArtifact(f"`{path}` is not a LightGBM model: train it again.") from error


class _LogisticFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: Literal["logistic_regression"] = "logistic_regression"
    intercept: FiniteFloat
    coefficients: list[FiniteFloat]
    means: list[FiniteFloat]
    scales: list[Positive]


@dataclass(frozen=True, eq=False)
class Logistic:
    """A logistic regression on standardised columns; what is missing counts as the mean and moves nothing."""

    intercept: float
    coefficients: NDArray[np.float64]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]
    suffix: ClassVar[str] = ".json"

    @classmethod
    def of(cls, *, intercept: float, coefficients: ArrayLike, means: ArrayLike, scales: ArrayLike) -> Self:
        """Wrap what was fitted on `(rows - means) / scales`, one coefficient, mean and scale a column.

        Raises FeatureSchemaMismatch unless they are equally many, finite, and every scale is above 0.
        """
        given = {
            name: np.asarray(values, dtype=np.float64)
            for name, values in (("coefficients", coefficients), ("means", means), ("scales", scales))
        }
        if {values.shape for values in given.values()} != {(given["coefficients"].size,)}:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in given.items())
            raise FeatureSchemaMismatch(f"A logistic regression needs one number of each kind a column, not {shapes}.")
        finite = bool(np.isfinite([intercept, *np.concatenate([*given.values()])]).all())
        if not finite or (given["scales"] <= 0).any():
            raise FeatureSchemaMismatch(
                "A logistic regression has a number that is not finite or a scale that is not above 0: leave columns "
                "out that are empty or constant."
            )
        return cls(float(intercept), **given)

    def check_names(self, names: tuple[str, ...]) -> None:
        """Raise FeatureSchemaMismatch unless there is one name a coefficient."""
        _check_width(self.coefficients.size, names)

    def predict(self, rows: Floats) -> Floats:
        """Return P(like), float32[n]."""
        log_odds = self._standardised(rows) @ self.coefficients + self.intercept
        return np.exp(-np.logaddexp(0.0, -log_odds)).astype(np.float32)

    def contributions(self, rows: Floats) -> Floats:
        """Return coefficient times standardised value, float32[n, k]."""
        return (self._standardised(rows) * self.coefficients).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Return the numbers as JSON."""
        told = _LogisticFile(
            intercept=self.intercept,
            coefficients=self.coefficients.tolist(),
            means=self.means.tolist(),
            scales=self.scales.tolist(),
        )
        return told.model_dump_json(indent=2).encode()

    @classmethod
    def read(cls, path: Path, threads: int) -> Self:  # noqa: ARG003 its products are too small to be shared out
        """Read what `to_bytes` wrote; raises CorruptArtifact."""
        try:
            told = _LogisticFile.model_validate_json(path.read_bytes())
            return cls.of(
                intercept=told.intercept, coefficients=told.coefficients, means=told.means, scales=told.scales
            )
        except (ValidationError, FeatureSchemaMismatch) as error:
            raise CorruptArtifact(f"`{path}` is not a logistic regression: train it again.") from error

    def _standardised(self, rows: Floats) -> NDArray[np.float64]:
        return np.nan_to_num((rows - self.means) / self.scales, nan=0.0)


Kind = type[Boosted] | type[LightGbm] | type[Logistic]
KINDS: Final[dict[str, Kind]] = {kind.suffix: kind for kind in (Boosted, LightGbm, Logistic)}


def read_model(path: Path, threads: int) -> RankerModel:
    """Read a verified file as its ending says; raises CorruptArtifact."""
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise CorruptArtifact(f"`{path}` is larger than {MAX_MODEL_BYTES} bytes: train a smaller ranker.")
    return KINDS[path.suffix].read(path, threads)


def _check_width(width: int, names: tuple[str, ...]) -> None:
    if width != len(names):
        raise FeatureSchemaMismatch(
            f"The model has {width} columns and {len(names)} names: they were not saved together."
        )
