"""Grow gradient-boosted trees that say how probable a like or a choice is, and judge them on the latest rows.

Validation is by time: the last slice of the rows stops the growth and gives the report; then the trees are grown again
on all rows. Columns that are empty or constant are dropped. A set without both answers is refused.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.layout import RANKING_FEATURES
from pipelines.metrics import CalibrationBins, Numbers, auc, calibration_bins, log_loss
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.errors import BadFeatures, OneClass
from registry.models.ranker import filled

Floats = npt.NDArray[np.float32]
_MIN_VALIDATION_ROWS = 50
_FIXED_ROUNDS = 60
"""Trees of a ranker whose rows are too few to stop it early."""
_WORTH_THREADS = 10_000_000
_REFERENCE_ROWS = 401
_TOLD_EVERY = 10
Progress = Callable[[int, int, dict[str, float], float], None]
"""Told the round, the most rounds, the log loss on `training` and (while it is judged) `validation` rows, seconds."""
MONOTONE = ("score_forward",)
_RISING, _FALLING = ("_share", "similarity_to_liked", "liked_requester"), ("_place",)
"""What a higher value of may only raise, or only lower, the chance to be chosen out of a list."""


@dataclass(frozen=True)
class TrainingReport:
    """What was grown and how well it did on the validation slice, which the trees judged here had not seen."""

    feature_names: tuple[str, ...]
    rows: int
    validation_rows: int
    rounds: int
    curve: dict[str, list[float]]
    importance: dict[str, float]
    dropped: dict[str, str]
    auc: float
    log_loss: float
    base_log_loss: float
    calibration: CalibrationBins
    validation_scores: Floats = field(repr=False)
    validation_labels: Floats = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """Return the finite numbers worth logging."""
        numbers = {
            "rows": float(self.rows),
            "validation_rows": float(self.validation_rows),
            "rounds": float(self.rounds),
            "validation_auc": self.auc,
            "validation_log_loss": self.log_loss,
            "validation_base_log_loss": self.base_log_loss,
            "validation_calibration_error": self.calibration.error,
        }
        return {name: value for name, value in numbers.items() if np.isfinite(value)}


def train_ranker(
    features: Floats,
    labels: Numbers,
    at_us: npt.NDArray[np.int64],
    config: RankerConfig | None = None,
    *,
    weights: Floats | None = None,
    rounds: int | None = None,
    feature_names: Sequence[str] = RANKING_FEATURES,
    progress: Progress | None = None,
) -> tuple[Any, TrainingReport]:
    """Return an `xgboost.Booster` over the kept columns, trained on `filled` rows, and its report.

    `features` float32[n, k] with NaN for missing, `labels` 0/1 [n], `at_us` int64[n] ascending or not, `weights`
    float32[n] or one each. With `rounds` so many trees are grown on all rows and nothing is held back.

    Raises:
        BadFeatures: shapes do not fit or a value is infinite.
        OneClass: all labels are equal.

    """
    config = config or RankerConfig()
    _check(features, labels, feature_names)
    late = _latest(at_us, config.validation_share)
    usable = (
        rounds is None
        and _both_classes(labels[~late])
        and _both_classes(labels[late])
        and int(late.sum()) >= _MIN_VALIDATION_ROWS
    )
    if not usable:
        late = np.zeros(labels.size, dtype=np.bool_)
    kept = _informative(features[~late])
    if not kept.size:
        raise BadFeatures("No feature varies over the training rows, so there is nothing to learn from.")
    names = tuple(feature_names[column] for column in kept)
    matrix = filled(features[:, kept])
    judged, curve = _grow(matrix, labels, late, names, config=config, rounds=rounds, weights=weights, progress=progress)
    rounds = _best_rounds(judged, curve)
    # Judge before the trees are grown again on all rows: afterwards the slice is no longer unseen.
    shown = late if usable else np.ones(labels.size, dtype=np.bool_)
    scores = np.asarray(judged.inplace_predict(matrix[shown], iteration_range=(0, rounds)), dtype=np.float32)
    final = judged
    if usable:
        nothing = np.zeros_like(late)
        final, _ = _grow(
            matrix, labels, nothing, names, config=config, rounds=rounds, weights=weights, progress=progress
        )
    report = TrainingReport(
        feature_names=names,
        rows=int(labels.size),
        validation_rows=int(late.sum()),
        rounds=rounds,
        curve=curve,
        importance=_importance(final, names),
        dropped=dropped_columns(features[~late], feature_names),
        auc=auc(labels[shown], scores),
        log_loss=log_loss(labels[shown], scores),
        base_log_loss=log_loss(labels[shown], np.full(int(shown.sum()), float(np.mean(labels[shown] > 0)))),
        calibration=calibration_bins(labels[shown], scores),
        validation_scores=scores,
        validation_labels=labels[shown].astype(np.float32),
    )
    return final, report


def order_statistics(features: Floats) -> Floats:
    """Return each column's values at evenly spaced ranks, missing ones last, float32[<= 401, k]."""
    ranks = np.unique(np.linspace(0, len(features) - 1, _REFERENCE_ROWS).round().astype(np.int64))
    return np.sort(features, axis=0)[ranks]


def _grow(
    matrix: Floats,
    labels: Numbers,
    late: npt.NDArray[np.bool_],
    names: tuple[str, ...],
    *,
    config: RankerConfig,
    rounds: int | None = None,
    weights: Floats | None = None,
    progress: Progress | None = None,
) -> tuple[Any, dict[str, list[float]]]:
    import xgboost

    def rows(part: npt.NDArray[np.bool_]) -> Any:
        weight = None if weights is None else weights[part]
        return xgboost.DMatrix(
            matrix[part], label=labels[part], weight=weight, feature_names=list(names), nthread=config.threads
        )

    early = rows(~late)
    watched = [(early, "training")]
    stop = None
    if late.any():
        watched.append((rows(late), "validation"))
        stop = config.early_stopping_rounds
    elif rounds is None:
        rounds = min(config.rounds, _FIXED_ROUNDS)
    curve: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        _parameters(names, config, matrix.size),
        early,
        num_boost_round=rounds or config.rounds,
        evals=watched,
        early_stopping_rounds=stop,
        evals_result=curve,
        verbose_eval=False,
        callbacks=None if progress is None else [_telling(progress, rounds or config.rounds)],
    )
    return booster, {name: list(values["logloss"]) for name, values in curve.items()}


def _telling(progress: Progress, rounds: int) -> Any:
    """Return what XGBoost calls after each round; every tenth, the first and the last are told."""
    import xgboost

    class Telling(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # the library ships no types
        began = time.perf_counter()

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            del model
            done = epoch + 1
            if done % _TOLD_EVERY == 0 or done in {1, rounds}:
                losses = {name: float(values["logloss"][-1]) for name, values in evals_log.items()}
                progress(done, rounds, losses, time.perf_counter() - self.began)
            return False

    return Telling()


def _parameters(names: tuple[str, ...], config: RankerConfig, n_values: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "learning_rate": config.learning_rate,
        "max_depth": config.max_depth,
        "min_child_weight": config.min_child_weight,
        "subsample": config.subsample,
        "colsample_bytree": config.column_sample,
        "reg_lambda": config.l2,
        "seed": config.seed,
        # Under few values a second thread waits more than it works, most of all on shared cores.
        "nthread": config.threads if n_values >= _WORTH_THREADS else 1,
    }
    if config.monotone_places:
        parameters["monotone_constraints"] = {
            name: 1 if name.endswith(_RISING) else -1 for name in names if name.endswith((*_RISING, *_FALLING))
        }
    if config.monotone_scores:
        parameters["monotone_constraints"] = {name: 1 for name in names if name in MONOTONE}
    return parameters


def _best_rounds(booster: Any, curve: dict[str, list[float]]) -> int:
    validation = curve.get("validation")
    return int(np.argmin(validation)) + 1 if validation else int(booster.num_boosted_rounds())


def _importance(booster: Any, names: tuple[str, ...]) -> dict[str, float]:
    gain = booster.get_score(importance_type="total_gain")
    total = sum(gain.values()) or 1.0
    shares = {name: float(gain.get(name, 0.0)) / total for name in names}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _latest(at_us: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """Mark the latest rows, never splitting an instant."""
    edge = np.sort(at_us)[int(at_us.size * (1.0 - share))] if at_us.size > 1 else at_us.max(initial=0)
    return np.asarray(at_us >= edge) if at_us.size else np.zeros(0, dtype=np.bool_)


def dropped_columns(features: Floats, feature_names: Sequence[str]) -> dict[str, str]:
    """Return the names of the columns that are not learned from, each with the reason."""
    kept = set(_informative(features).tolist())
    left = [column for column in range(features.shape[1]) if column not in kept]
    return {feature_names[column]: _why_dropped(features[:, column]) for column in left}


def _why_dropped(values: Floats) -> str:
    if np.isnan(values).all():
        return "empty: no row has a value"
    return f"constant: every row has {float(values[0]):g}"


def _informative(features: Floats) -> npt.NDArray[np.intp]:
    """Return the columns that vary over these rows; missing here and present there counts as varying."""
    kept = []
    for column in range(features.shape[1]):
        values = features[:, column]
        missing = np.isnan(values)
        if missing.all():
            continue
        present = values[~missing]
        if missing.any() or present.min() != present.max():
            kept.append(column)
    return np.array(kept, dtype=np.intp)


def _both_classes(labels: Numbers) -> bool:
    return bool(labels.size) and bool((labels > 0).any()) and bool((labels <= 0).any())


def _check(features: Floats, labels: Numbers, names: Sequence[str]) -> None:
    if features.ndim != 2 or features.shape != (labels.size, len(names)):
        raise BadFeatures(
            f"The feature matrix has shape {features.shape}, not {labels.size} rows of {len(names)} features."
        )
    if np.isinf(features).any():
        column = int(np.flatnonzero(np.isinf(features).any(axis=0))[0])
        raise BadFeatures(f"The feature `{names[column]}` is infinite in some row: use NaN for what is not known.")
    if not _both_classes(labels):
        raise OneClass(
            f"All {labels.size} decisions of the ranker's window are the same: give rows of which some are likes and "
            "some are not."
        )


def validation_loss(
    features: Floats,
    labels: Numbers,
    at_us: npt.NDArray[np.int64],
    config: RankerConfig,
    *,
    after_round: Callable[[int, float], None],
    feature_names: Sequence[str] = RANKING_FEATURES,
) -> float:
    """Return the least log loss on the latest rows of trees that are grown on the earlier ones, and nothing else.

    `after_round` is told each round, from 0, and its loss; what it raises ends the growth and is raised here.

    Raises:
        BadFeatures, OneClass: as for `train_ranker`; OneClass also where either slice has one answer only.
    """
    import xgboost

    class Told(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # the library ships no types
        def after_iteration(self, _model: Any, epoch: int, evals_log: dict[str, dict[str, list[float]]]) -> bool:
            after_round(epoch, float(evals_log["validation"]["logloss"][-1]))
            return False

    _check(features, labels, feature_names)
    late = _latest(at_us, config.validation_share)
    if not (_both_classes(labels[~late]) and _both_classes(labels[late])):
        raise OneClass(
            "The early or the latest rows of the ranker's window are all the same, so no trial can be judged: "
            "move `validation_share`."
        )
    kept = _informative(features[~late])
    matrix, names = filled(features[:, kept]), [feature_names[column] for column in kept]
    early, judged = (
        xgboost.DMatrix(matrix[rows], label=labels[rows], feature_names=names, nthread=config.threads)
        for rows in (~late, late)
    )
    curve: dict[str, dict[str, list[float]]] = {}
    xgboost.train(
        _parameters(tuple(names), config, matrix.size),
        early,
        num_boost_round=config.rounds,
        evals=[(judged, "validation")],
        early_stopping_rounds=config.early_stopping_rounds,
        evals_result=curve,
        verbose_eval=False,
        callbacks=[Told()],
    )
    return float(min(curve["validation"]["logloss"]))
