"""Who comes to look at whom in a synthetic world: people drawn for them, or people they choose themselves.

Both draw from those who fit, by popularity. With random exposure whoever is drawn is decided on. With self-selected
exposure the person drawn is opened only when the glance at them promises something, so that which pairs have a
decision depends on taste, on distance and, more steeply, on popularity: the data of sites where people browse.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.ingest.world.inhabitants import N_LATENT, Inhabitants
from pipelines.ingest.world.liking import TASTE_SPREAD, TASTE_WEIGHTS, Liking
from pipelines.ingest.world.town import Indexes, Mask, Town

Floats = NDArray[np.float64]

_TASTE_IN_A_GLANCE = 1.5
_CURIOSITY_IN_A_GLANCE = 1.0
_KM_IN_A_GLANCE = 30.0
_EAGERNESS = 0.4
_ANSWERS_A_LIKE, _ANSWERS_A_PASS = 0.7, 0.3


class Exposure(Protocol):
    """The rule by which pairs come to be looked at."""

    open_rate: float
    """About how many of the fitting people drawn are opened."""

    def opens(self, a: Indexes, b: Indexes, at_s: Indexes) -> Floats:
        """Return the chance that `a` opens `b` when `b` is drawn, float64[n]."""
        ...

    def opened(self, a: Indexes, b: Indexes, at_s: Indexes, rng: np.random.Generator) -> Mask:
        """Toss for each draw whether it is opened."""
        ...

    def answers(self, a: Indexes, b: Indexes, at_s: Indexes, liked: Mask) -> Floats:
        """Return the chance that `a` comes to decide on `b`, who decided first and `liked` them or not."""
        ...


class RandomExposure:
    """Everybody who is drawn is decided on: exposure depends on popularity alone."""

    open_rate = 1.0

    def opens(self, a: Indexes, b: Indexes, at_s: Indexes) -> Floats:  # noqa: ARG002 - see Exposure
        """Return one for every draw."""
        return np.ones(len(a))

    def opened(self, a: Indexes, b: Indexes, at_s: Indexes, rng: np.random.Generator) -> Mask:  # noqa: ARG002
        """Return true for every draw, and toss nothing."""
        return np.ones(len(a), dtype=bool)

    def answers(self, a: Indexes, b: Indexes, at_s: Indexes, liked: Mask) -> Floats:  # noqa: ARG002
        """Return more for those who were liked."""
        return np.where(liked, _ANSWERS_A_LIKE, _ANSWERS_A_PASS)


class SelfSelectedExposure:
    """People open those who promise something: by their taste, by a curiosity that liking knows nothing of, nearby."""

    open_rate = 0.35

    def __init__(self, people: Inhabitants, town: Town, liking: Liking, curiosity: NDArray[np.float32]) -> None:
        self._people, self._town, self._liking, self._curiosity = people, town, liking, curiosity

    @classmethod
    def draw(cls, people: Inhabitants, town: Town, liking: Liking, rng: np.random.Generator) -> Self:
        """Draw what each person is curious about."""
        return cls(people, town, liking, rng.standard_normal((len(people), N_LATENT), dtype=np.float32))

    def opens(self, a: Indexes, b: Indexes, at_s: Indexes) -> Floats:
        """Return the chance that `a` opens `b` when `b` is drawn, float64[n]."""
        taste = self._liking.attraction(a, b, at_s) / TASTE_SPREAD
        curious = (self._curiosity[a] * self._people.trait[b] * TASTE_WEIGHTS).sum(axis=1) / TASTE_SPREAD
        promise = _TASTE_IN_A_GLANCE * taste + _CURIOSITY_IN_A_GLANCE * curious + _EAGERNESS
        nearness = np.exp(-self._town.distance_km(a, b) / _KM_IN_A_GLANCE)
        return np.asarray(nearness / (1.0 + np.exp(-promise.astype(np.float64))))

    def opened(self, a: Indexes, b: Indexes, at_s: Indexes, rng: np.random.Generator) -> Mask:
        """Toss for each draw whether it is opened."""
        return np.asarray(rng.random(len(a)) < self.opens(a, b, at_s))

    def answers(self, a: Indexes, b: Indexes, at_s: Indexes, liked: Mask) -> Floats:
        """Return as much as elsewhere for those who were liked; the others find the person by browsing alone."""
        return np.where(liked, _ANSWERS_A_LIKE, self.opens(a, b, at_s))
