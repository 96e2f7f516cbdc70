"""What another policy would have reached, estimated from what one policy showed and with which logged propensity.

A row is one shown person: `reward` is what followed (1 for a like), `logged` the chance with which the logging policy
showed that person there, `target` the chance with which the policy to judge would have. The estimate is the mean
reward per shown person. It needs every person the judged policy may show to have had a chance: what the logging
policy could never show, no weight brings back.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.metrics.arrays import Floats, Numbers
from pipelines.metrics.errors import BadPropensity


@dataclass(frozen=True)
class OffPolicyEstimate:
    """The estimated mean reward, its standard error over people, and the rows' effective number."""

    value: float
    standard_error: float
    effective_rows: float
    """(sum of weights)^2 / sum of squared weights (Kish 1965): far fewer than the rows means a few decide alone."""

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the normal approximation."""
        return self.value - 1.96 * self.standard_error, self.value + 1.96 * self.standard_error


def importance_weights(logged: Floats, target: Floats, most: float | None = None) -> Floats:
    """Return target / logged, float64[n], cut at `most`: less variance for a bias towards zero.

    Raises:
        BadPropensity: a logged propensity outside (0, 1].

    """
    bad = np.flatnonzero(~((logged > 0) & (logged <= 1)))
    if bad.size:
        raise BadPropensity(
            f"The logged propensity {logged[bad[0]]} of row {bad[0]} is not within (0, 1]: "
            "leave out the rows that were not drawn by chance."
        )
    weights = np.asarray(target / logged, dtype=np.float64)
    return weights if most is None else np.minimum(weights, most)


def inverse_propensity(reward: Numbers, weights: Floats, people: npt.NDArray[np.int64]) -> OffPolicyEstimate:
    """Return the inverse propensity estimate (Horvitz and Thompson 1952): unbiased, with a large variance.

    Args:
        reward: float[n], or truth values.
        weights: float64[n] of `importance_weights`.
        people: int64[n], whose list the row is of; rows of one person are not independent.

    """
    return _estimate(weights * np.asarray(reward, dtype=np.float64), weights, people)


def self_normalised(reward: Numbers, weights: Floats, people: npt.NDArray[np.int64]) -> OffPolicyEstimate:
    """Return the self-normalised estimate (Swaminathan and Joachims 2015): a small bias, a smaller variance.

    It also holds where propensities are known only up to a factor.
    """
    total = float(weights.sum())
    if total <= 0:
        return OffPolicyEstimate(float("nan"), float("nan"), 0.0)
    value = float(weights @ np.asarray(reward, dtype=np.float64)) / total
    residual = weights * (np.asarray(reward, dtype=np.float64) - value)
    spread = np.sqrt((np.bincount(np.unique(people, return_inverse=True)[1], weights=residual) ** 2).sum()) / total
    return OffPolicyEstimate(value, float(spread), _effective(weights))


def doubly_robust(
    reward: Numbers, weights: Floats, people: npt.NDArray[np.int64], *, predicted: Floats, predicted_target: Floats
) -> OffPolicyEstimate:
    """Return the doubly robust estimate (Dudik, Langford, Li 2011): right where the model or the propensities are.

    Args:
        reward: float[n], or truth values.
        weights: float64[n] of `importance_weights`.
        people: int64[n], whose list the row is of.
        predicted: float64[n], a model's reward of the person shown; fitted on other rows, or it hides its own errors.
        predicted_target: float64[n], the model's mean reward over whom the judged policy would have shown there.

    """
    residual = np.asarray(reward, dtype=np.float64) - predicted
    return _estimate(predicted_target + weights * residual, weights, people)


def _estimate(values: Floats, weights: Floats, people: npt.NDArray[np.int64]) -> OffPolicyEstimate:
    if not values.size:
        return OffPolicyEstimate(float("nan"), float("nan"), 0.0)
    value = float(values.mean())
    of_person = np.bincount(np.unique(people, return_inverse=True)[1], weights=values - value)
    return OffPolicyEstimate(value, float(np.sqrt((of_person**2).sum()) / values.size), _effective(weights))


def _effective(weights: Floats) -> float:
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0
