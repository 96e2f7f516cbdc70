"""A linear map from a person's profile to factors: ridge regression in closed form, in double precision.

Columns are standardised for the solve, so the penalty treats a bit and a kilometre alike, and mapped back so that
readers multiply raw inputs. A column that never varies gets no weight.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.population.people import People
from feature_repo.transforms import content_inputs

Floats = npt.NDArray[np.float32]
ContentInputs = Callable[[npt.NDArray[np.int64]], Floats]
"""Inputs float32[m, c] of the people at m positions: a function, so that a million people need no giant matrix."""


@dataclass(frozen=True)
class ContentMap:
    """weights float32[c, d], intercept float32[d]; `r2` per fitted block: explained share of variance on its rows."""

    weights: Floats
    intercept: Floats
    r2: tuple[float, ...]

    @classmethod
    def stacked(cls, *blocks: "ContentMap") -> "ContentMap":
        """Put the outputs of several maps side by side."""
        return cls(
            np.concatenate([block.weights for block in blocks], axis=1),
            np.concatenate([block.intercept for block in blocks]),
            tuple(r2 for block in blocks for r2 in block.r2),
        )

    def predict(self, inputs: Floats) -> Floats:
        """Return float32[n, d] of float32[n, c]."""
        return (inputs @ self.weights + self.intercept).astype(np.float32)

    def predict_all(self, inputs: "ContentInputs", n: int) -> Floats:
        """Return float32[n, d] of n people, asking for their inputs in blocks."""
        everybody = np.arange(n, dtype=np.int64)
        return np.concatenate(
            [
                np.empty((0, self.intercept.size), dtype=np.float32),
                *(self.predict(inputs(part)) for part in _parts(everybody)),
            ]
        )


def inputs_of(people: People, at_s: float) -> ContentInputs:
    """Return the content inputs of these people at unix seconds, computed when asked for."""
    return lambda positions: content_inputs(people.take(positions), at_s)


def fit_content_map(
    inputs: ContentInputs, factors: Floats, rows: npt.NDArray[np.bool_], regularization: float
) -> ContentMap:
    """Fit factors float32[n, d] on their people's inputs over the chosen rows; without rows everything maps to zero."""
    width, dimensions = inputs(np.empty(0, dtype=np.int64)).shape[1], factors.shape[1]
    at = np.flatnonzero(rows)
    if not at.size:
        return ContentMap(np.zeros((width, dimensions), np.float32), np.zeros(dimensions, np.float32), (0.0,))
    total, square = np.zeros(width), np.zeros(width)
    for part in _parts(at):
        block = inputs(part).astype(np.float64)
        total += block.sum(axis=0)
        square += (block**2).sum(axis=0)
    mean = total / at.size
    deviation = np.sqrt(np.maximum(square / at.size - mean**2, 0.0))
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1.0)
    scale = np.where(varies, deviation, 1.0)
    target_mean = factors[at].mean(axis=0, dtype=np.float64)
    gram, moment, spread = np.zeros((width, width)), np.zeros((width, dimensions)), 0.0
    for part in _parts(at):
        z = (inputs(part).astype(np.float64) - mean) / scale * varies
        y = factors[part].astype(np.float64) - target_mean
        gram += z.T @ z
        moment += z.T @ y
        spread += float((y**2).sum())
    gram[np.diag_indices_from(gram)] += regularization
    solved = np.linalg.solve(gram, moment)
    # ||y||^2 - ||y - zw||^2, with the penalty taken out of the regularised gram.
    gained = 2 * float((solved * moment).sum()) - float((solved * (gram @ solved)).sum())
    gained += regularization * float((solved**2).sum())
    weights = solved / scale[:, None]
    return ContentMap(
        weights.astype(np.float32),
        (target_mean - mean @ weights).astype(np.float32),
        (gained / spread if spread > 0 else 0.0,),
    )


def _parts(rows: npt.NDArray[np.int64], size: int = 16_384) -> list[npt.NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, rows.size, size)]
