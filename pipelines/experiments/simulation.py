"""How often equal arms are told apart: made-up experiments without a difference, judged as real ones are, look by look.

People differ in how often they come, when they first come and what they like; the less `concentration` there is, the
more the likes of one person resemble each other (a beta distribution of tastes; inf: everybody has the same). The
larger arm has at most `MOST_PEOPLE`: more would say its rate more exactly, and nothing of the smaller arm.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite
from typing import Final

import numpy as np

from pipelines.experiments.clustered import Floats, Sums
from pipelines.experiments.report import ENOUGH_PEOPLE, LOOKS, Choices, look_at
from pipelines.experiments.sequential import Decision, Look

MOST_PEOPLE: Final = 1_000
SHOWN: Final = 8.0
"""People shown at a visit, in the mean."""
VISITS: Final = 0.25
"""Visits per person and look, in the mean."""
_BATCH: Final = 25


@dataclass(frozen=True)
class Case:
    """An experiment without a difference: people of both arms, the challenger's share, the rate of likes or matches."""

    people: int
    share: float
    rate: float
    concentration: float

    @property
    def arms(self) -> tuple[int, int]:
        """Return the people of the champion and of the challenger."""
        challenger = round(self.people * self.share)
        return min(self.people - challenger, MOST_PEOPLE), challenger


@dataclass(frozen=True)
class Outcome:
    """How many of `worlds` experiments of a case were decided at any look, and how many had a look at all."""

    case: Case
    worlds: int
    decided: int
    judged: int

    @property
    def share(self) -> float:
        """Return the share of the experiments that were decided, and wrongly."""
        return self.decided / self.worlds


GRID: Final = tuple(
    Case(people, share, rate, concentration)
    for people, share in ((3_000, 0.02), (3_000, 0.03), (10_000, 0.02), (10_000, 0.03), (3_000, 0.1), (3_000, 0.5))
    for rate, concentration in product((0.002, 0.01, 0.05, 0.25), (inf, 20.0, 2.0, 0.5))
)
"""What is published: small and equal arms, rare and common outcomes, likes of everybody alike up to a few people's."""
WORST: Final = (Case(10_000, 0.02, 0.01, 0.5), Case(3_000, 0.03, 0.05, 0.5), Case(10_000, 0.03, 0.002, 2.0))
"""Cases in which variances alone were wrong most often; they stand for the grid in a test that takes seconds."""

Judge = Callable[[Sums, Sums, Choices], Look]


def simulate(case: Case, worlds: int, seed: int = 1, judge: Judge = look_at) -> Outcome:
    """Judge `worlds` experiments of one case."""
    rng = np.random.default_rng((seed, case.people, round(1_000 * case.share), round(10_000 * case.rate)))
    choices = Choices()
    decided = judged = 0
    for done in range(0, worlds, _BATCH):
        size = min(_BATCH, worlds - done)
        champions, challengers = (_arm(rng, case, size, people) for people in case.arms)
        for looks in zip(champions, challengers, strict=True):
            seen = [
                judge(champion, challenger, choices)
                for champion, challenger in zip(*looks, strict=True)
                if min(champion.people, challenger.people) >= ENOUGH_PEOPLE
            ]
            judged += any(isfinite(one.high) for one in seen)
            decided += any(one.decision is not Decision.OPEN for one in seen)
    return Outcome(case, worlds, decided, judged)


def simulate_grid(worlds: int, cases: Sequence[Case] = GRID) -> Iterator[Outcome]:
    """Simulate every case, one after the other."""
    for case in cases:
        yield simulate(case, worlds)


def _arm(rng: np.random.Generator, case: Case, worlds: int, people: int) -> list[list[Sums]]:
    """Return what is known of an arm at each look, of each world."""
    shape = (worlds, people)
    spread = case.concentration
    taste = rng.beta(case.rate * spread, (1 - case.rate) * spread, shape) if isfinite(spread) else case.rate
    eager = rng.gamma(1.0, VISITS, shape)
    begins = rng.integers(0, LOOKS, shape)
    trials, successes = np.zeros(shape), np.zeros(shape)
    found: list[list[Sums]] = [[] for _ in range(worlds)]
    for look in range(LOOKS):
        shown = rng.poisson(SHOWN * rng.poisson(eager * (begins <= look)))
        trials += shown
        successes += rng.binomial(shown, taste)
        for world in range(worlds):
            found[world].append(_sums(trials[world], successes[world]))
    return found


def _sums(trials: Floats, successes: Floats) -> Sums:
    there = trials > 0
    return Sums.of(trials[there], successes[there])
