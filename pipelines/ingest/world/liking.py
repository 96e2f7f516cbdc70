"""The truth of a synthetic world: how likely somebody likes somebody else, and how tastes change over its window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipelines.ingest.world.inhabitants import N_LATENT, Inhabitants, shared_interests
from pipelines.ingest.world.town import Indexes

Floats = NDArray[np.float32]

# A few traits matter most, as in life; a flat spectrum could be learned from no affordable number of decisions.
TASTE_WEIGHTS = np.array([2.2, 1.6, 0.7, 0.3, 0.2, 0.1, 0.1, 0.1], dtype=np.float32)
TASTE_SPREAD = np.float32(np.sqrt((TASTE_WEIGHTS**2).sum()))
"""The standard deviation of taste times trait over random pairs."""
_POPULARITY_WEIGHT = 0.9
_INTEREST_WEIGHT = 0.18
_BLOCK = 1 << 18
_MOST_TURN = np.float32(np.pi / 3)


@dataclass(frozen=True)
class TasteDrift:
    """How tastes turn over the window: from `Inhabitants.taste` towards `other`, by `turn` radians at its end."""

    other: Floats  # [n, N_LATENT]
    turn: Floats  # [n]
    start_s: int
    until_s: int

    @classmethod
    def draw(cls, n_people: int, rng: np.random.Generator, *, start_s: int, until_s: int) -> Self:
        """Draw tastes that turn by 0 to 60 degrees; everybody's taste keeps its length on average."""
        other = rng.standard_normal((n_people, N_LATENT), dtype=np.float32)
        return cls(other, _MOST_TURN * rng.random(n_people, dtype=np.float32), start_s, until_s)

    def taste(self, people: Inhabitants, who: Indexes, at_s: Indexes) -> Floats:
        """Return the taste of each person at that time, float32[n, N_LATENT]."""
        share = np.clip((at_s - self.start_s) / (self.until_s - self.start_s), 0, 1).astype(np.float32)
        angle = self.turn[who] * share
        return np.asarray(np.cos(angle)[:, None] * people.taste[who] + np.sin(angle)[:, None] * self.other[who])


class Liking:
    """Who likes whom with which probability; `intercept` decides how often, and is set once by the world."""

    def __init__(self, people: Inhabitants, drift: TasteDrift | None = None) -> None:
        self._people, self._drift = people, drift
        self.intercept = 0.0

    def attraction(self, a: Indexes, b: Indexes, at_s: Indexes) -> Floats:
        """Return how well the traits of `b` meet the taste of `a` at that time, float32[n], about N(0, spread)."""
        taste = self._people.taste[a] if self._drift is None else self._drift.taste(self._people, a, at_s)
        # Elementwise product and sum, not BLAS: the same bits whatever the number of pairs.
        return np.asarray((taste * self._people.trait[b] * TASTE_WEIGHTS).sum(axis=1))

    def logit(self, a: Indexes, b: Indexes, at_s: Indexes) -> Floats:
        """Return the log-odds without the intercept, float32[n]."""
        p = self._people
        common = np.minimum(shared_interests(p.interests[a], p.interests[b]), 4)
        logit = self.attraction(a, b, at_s) + _POPULARITY_WEIGHT * p.popularity[b] - p.pickiness[a]
        return np.asarray(logit + _INTEREST_WEIGHT * common, dtype=np.float32)

    def probability(self, a: Indexes, b: Indexes, at_s: Indexes) -> NDArray[np.float64]:
        """Return the chance that each `a` likes `b` when shown it at that time, float64[n]."""
        found = np.empty(len(a))
        for low in range(0, len(a), _BLOCK):
            part = slice(low, low + _BLOCK)
            found[part] = self.logit(a[part], b[part], at_s[part])
        return np.asarray(1.0 / (1.0 + np.exp(-(found + self.intercept))))

    def calibrate(self, a: Indexes, b: Indexes, at_s: Indexes, *, rate: float) -> None:
        """Set the intercept that gives these pairs the like rate `rate`."""
        logits = self.logit(a, b, at_s).astype(np.float64)
        low, high = -20.0, 20.0
        for _ in range(50):
            middle = (low + high) / 2
            reached = float(np.mean(1.0 / (1.0 + np.exp(-(logits + middle)))))
            low, high = (middle, high) if reached < rate else (low, middle)
        self.intercept = (low + high) / 2
