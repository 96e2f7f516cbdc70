"""Rates, quantiles and shares whose uncertainty respects that one person's answers resemble each other.

People are drawn, not answers: the delta method and the bootstrap both take a person as the unit (Deng, Knoblich and Lu
2018, "Applying the Delta Method in Metric Analytics").
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES: Final = 200
SMALLEST_EXPECTED: Final = 5
"""Below so many people expected in an arm, the chi-square distribution is no approximation."""
ENOUGH_EVENTS: Final = 10
"""Independent successes to be expected on each side from which on its rate is about normal: see `simulation`."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; `variance` is that of the estimator."""

    value: float
    low: float
    high: float
    variance: float = float("nan")


@dataclass(frozen=True)
class Sums:
    """What a rate of many people needs: sums over people of trials, successes, their squares and their product."""

    people: int
    trials: float
    successes: float
    trials_squared: float
    product: float
    successes_squared: float

    @classmethod
    def of(cls, trials: Floats, successes: Floats) -> Self:
        """Sum over people; one element each."""
        return cls(
            len(trials),
            float(trials.sum()),
            float(successes.sum()),
            float(trials @ trials),
            float(trials @ successes),
            float(successes @ successes),
        )

    def __add__(self, other: "Sums") -> "Sums":
        """Put the people of both together."""
        mine, theirs = astuple(self), astuple(other)
        return Sums(*(one + two for one, two in zip(mine, theirs, strict=True)))

    @property
    def rate(self) -> float:
        """Return successes per trial, NaN without a trial."""
        return self.successes / self.trials if self.trials else float("nan")

    @property
    def variance(self) -> float:
        """Return the variance of the rate by the delta method, infinite where it is unknown.

        Never below that of independent trials with one success and one failure more: a rate of exactly 0 or 1 in a
        sample is not known exactly.
        """
        if self.people < 2 or not self.trials:
            return float("inf")
        rate = self.rate
        residuals = self.successes_squared - 2 * rate * self.product + rate * rate * self.trials_squared
        clustered = self.people / (self.people - 1) * max(residuals, 0.0) / self.trials**2
        smoothed = (self.successes + 1) / (self.trials + 2)
        return max(clustered, smoothed * (1 - smoothed) / (self.trials + 2))


@dataclass(frozen=True)
class Pair:
    """Two sides of one comparison, about whose difference nothing is known before."""

    subject: Sums
    other: Sums

    @property
    def _person(self) -> float:
        """Return the mean square of how far a person's successes lie from the rate of everybody, of both sides."""
        both = self.subject + self.other
        rate = both.rate
        return (
            max(both.successes_squared - 2 * rate * both.product + rate * rate * both.trials_squared, 0) / both.people
        )

    def variance(self, side: Sums) -> float:
        """Return the variance of a side's rate: its own, and no less than everybody's people would give it.

        A small side whose few successes happen to be spread looks surer than it is; the large side knows better.
        """
        if not side.trials:
            return float("inf")
        return max(side.variance, side.people * self._person / side.trials**2)

    @property
    def effective_events(self) -> float:
        """Return how many independent successes the smaller side can be expected to have, or failures if rarer.

        As many as it would have at the rate of both, divided by how much those of one person resemble each other.
        """
        both = self.subject + self.other
        rate = both.rate
        if not 0 < rate < 1:
            return 0.0
        alone = rate * (1 - rate) * both.trials / both.people
        expected = min(rate, 1 - rate) * min(self.subject.trials, self.other.trials)
        return expected / max(self._person / alone, 1.0)


def rate_estimate(sums: Sums, alpha: float) -> Estimate:
    """Return the rate with its two-sided interval of confidence 1 - alpha, within 0 and 1."""
    from scipy.stats import norm

    half = float(norm.ppf(1 - alpha / 2)) * sums.variance**0.5
    low, high = sums.rate - half, sums.rate + half
    return Estimate(sums.rate, max(low, 0.0), min(high, 1.0), sums.variance)


def quantile_estimates(
    values: Floats, people: NDArray[Any], quantiles: Sequence[float], alpha: float, rng: np.random.Generator
) -> list[Estimate]:
    """Return quantiles of `values` with intervals from a Poisson bootstrap over people; NaN without a value."""
    nothing = float("nan")
    if not len(values):
        return [Estimate(nothing, nothing, nothing) for _ in quantiles]
    ascending = np.argsort(values, kind="stable")
    ordered = values[ascending]
    _, codes = np.unique(people[ascending], return_inverse=True)
    n = int(codes.max()) + 1
    drawn = np.full((RESAMPLES, len(quantiles)), np.nan)
    for row in drawn:
        upto = np.cumsum(rng.poisson(1.0, n)[codes])
        if upto[-1]:
            row[:] = ordered[np.searchsorted(upto, np.asarray(quantiles) * upto[-1]).clip(max=len(ordered) - 1)]
    low, high = np.nanquantile(drawn, [alpha / 2, 1 - alpha / 2], axis=0)
    return [
        Estimate(float(np.quantile(ordered, q)), float(low[place]), float(high[place]))
        for place, q in enumerate(quantiles)
    ]


def sample_ratio_p(n_champion: int, n_challenger: int, share: float) -> float | None:
    """Return the p-value of these numbers of people under a challenger's share; None where no test says anything.

    Chi-square with one degree of freedom; small p means that the assignment or its log is broken.
    """
    from scipy.stats import chisquare

    n = n_champion + n_challenger
    expected = [n * (1 - share), n * share]
    if min(expected) < SMALLEST_EXPECTED:
        return None
    return float(chisquare([n_champion, n_challenger], expected).pvalue)
