"""Looking as often as one likes without being fooled: always-valid intervals, p-values and the decision they allow.

The mixture sequential probability ratio test of a normal estimator (Robbins 1970; Johari, Koomen, Pekelis and Walsh
2017, "Peeking at A/B Tests"; as a confidence sequence, Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform,
nonparametric, nonasymptotic confidence sequences"). With V the variance of the estimated difference and effects
expected to scatter around 0 with standard deviation tau, the interval

    difference +- sqrt(V (V + tau^2) / tau^2 * log((V + tau^2) / (V alpha^2)))

holds the true difference at all looks together with probability 1 - alpha. It is asymptotic: V must come from enough
people. tau must be chosen before the data; it decides when the interval is tightest, not whether it is valid.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import exp, inf, isfinite, log, nan, sqrt


class Decision(StrEnum):
    """What may be said of an experiment."""

    CHALLENGER = "challenger better"
    CHAMPION = "champion better"
    OPEN = "no decision yet"


@dataclass(frozen=True)
class Look:
    """The difference at one look, its always-valid interval, and the p-value of `no difference` at this look."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def decision(self) -> Decision:
        """Return what the interval says: on which side of 0 it lies."""
        if self.low > 0:
            return Decision.CHALLENGER
        return Decision.CHAMPION if self.high < 0 else Decision.OPEN


def look(difference: float, variance: float, tau: float, alpha: float) -> Look:
    """Return a look at a difference that is about normal with this variance; knows nothing where that is unknown."""
    if not (isfinite(difference) and isfinite(variance) and variance > 0 and tau > 0):
        return Look(difference if isfinite(difference) else nan, -inf, inf, 1.0)
    half = half_width(variance, tau, alpha)
    together = variance + tau**2
    ratio = exp(min(difference**2 * tau**2 / (2 * variance * together), 700.0)) * sqrt(variance / together)
    return Look(difference, difference - half, difference + half, min(1.0, 1.0 / ratio))


def half_width(variance: float, tau: float, alpha: float) -> float:
    """Return how far the always-valid interval reaches to each side."""
    together = variance + tau**2
    return sqrt(variance * together / tau**2 * (log(together / variance) - 2 * log(alpha)))
