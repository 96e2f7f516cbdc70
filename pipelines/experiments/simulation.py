"""How often equal arms are told apart: made-up experiments without a difference, judged as real ones are, look by look.

People differ in how often they come, when they first come and what they like; the less `concentration` there is, the
more the likes of one person resemble each other (a beta distribution of tastes; inf: everybody has the same). The
larger arm has at most `MOST_PEOPLE`: more would say its rate more exactly, and nothing of the smaller arm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite
from typing import Final

import numpy as np

from pipelines.experiments.clustered import Floats, Sums
from pipelines.experiments.guardrails import Guardrail, judge, load_guardrails
from pipelines.experiments.report import ENOUGH_PEOPLE, LOOKS, Choices, look_at
from pipelines.experiments.sequential import Decision, look

MOST_PEOPLE: Final = 1_000
SHOWN: Final = 8.0
"""People shown at a visit, in the mean."""
VISITS: Final = 0.25
"""Visits per person and look, in the mean."""
_BATCH: Final = 25
_RAILS: Final = load_guardrails()
_LIKES: Final = _RAILS.of("like_rate") or Guardrail(metric="like_rate", worse="lower", factor=0.7)
_ERRORS: Final = _RAILS.of("error_rate") or Guardrail(metric="error_rate", worse="higher", margin=0.02)
Judge = Callable[[Sums, Sums], bool]
"""Says whether a champion and a challenger are told apart at one look."""


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
class SimulationOutcome:
    """In how many of `worlds` experiments of a case each judge told the arms apart at any look, and was wrong."""

    case: Case
    worlds: int
    wrong: Mapping[str, int]

    def share(self, judge: str) -> float:
        """Return the share of the experiments in which a judge was wrong."""
        return self.wrong[judge] / self.worlds


def read_out_by(expected_effect: float) -> Judge:
    """Return the judge of the read-out, who expects an effect of this share of the rate."""
    choices = Choices(expected_effect=expected_effect)

    def told_apart(champion: Sums, challenger: Sums) -> bool:
        enough = min(champion.people, challenger.people) >= ENOUGH_PEOPLE
        return enough and look_at(champion, challenger, choices).decision is not Decision.OPEN

    return told_apart


def guard(champion: Sums, challenger: Sums) -> bool:
    """Judge likes as the guard does in its first window."""
    return judge(_RAILS, _LIKES, challenger, champion, 0).broken


def guard_of_errors(champion: Sums, challenger: Sums) -> bool:
    """Judge errors as the guard does in its first window."""
    return judge(_RAILS, _ERRORS, challenger, champion, 0).broken


def each_arm_alone(champion: Sums, challenger: Sums) -> bool:
    """Judge by the variance of each arm's own people, however few: what was done before, and is shown beside."""
    if min(champion.people, challenger.people) < ENOUGH_PEOPLE:
        return False
    variance, tau = champion.variance + challenger.variance, max(champion.rate, 1 / champion.trials)
    return look(challenger.rate - champion.rate, variance, tau, Choices().alpha).decision is not Decision.OPEN


JUDGES: Final[Mapping[str, Judge]] = {
    "read-out": read_out_by(Choices().expected_effect),
    "read-out, effect 1": read_out_by(1.0),
    "guard": guard,
    "each arm alone": each_arm_alone,
}
HELD: Final = tuple(name for name in JUDGES if name != "each arm alone")
"""The judges that decide, and must be right."""
GRID: Final = tuple(
    Case(people, share, rate, concentration)
    for people, share in ((3_000, 0.02), (10_000, 0.02), (3_000, 0.03), (3_000, 0.1), (2_000, 0.5))
    for rate, concentration in product((0.004, 0.02, 0.1), (inf, 20.0, 2.0, 0.3))
)
"""What is published: small and equal arms, rare and common outcomes, likes of everybody alike up to a few people's."""
WORST: Final = (Case(10_000, 0.02, 0.02, 2.0), Case(3_000, 0.03, 0.02, 0.3), Case(3_000, 0.03, 0.004, 20.0))
"""Cases in which variances alone were wrong often; they stand for the grid in a test that takes seconds."""

SMALL_CHAMPION: Final = Case(800, 0.95, 0.1, 0.03)
"""Errors of a few people, of whom forty on the champion's side may hold none: its own variance was far too small."""


def simulate(case: Case, worlds: int, judges: Mapping[str, Judge] = JUDGES) -> SimulationOutcome:
    """Judge `worlds` experiments of one case at every look."""
    rng = np.random.default_rng((case.people, round(1_000 * case.share), round(10_000 * case.rate)))
    wrong = dict.fromkeys(judges, 0)
    for done in range(0, worlds, _BATCH):
        champions, challengers = (_arm(rng, case, min(_BATCH, worlds - done), people) for people in case.arms)
        for looks in zip(champions, challengers, strict=True):
            for name, told_apart in judges.items():
                wrong[name] += any(told_apart(*arms) for arms in zip(*looks, strict=True))
    return SimulationOutcome(case, worlds, wrong)


def simulate_grid(worlds: int, cases: Sequence[Case] = GRID) -> Iterator[SimulationOutcome]:
    """Simulate every case, one after the other."""
    for case in cases:
        yield simulate(case, worlds)


def row_of(outcome: SimulationOutcome) -> list[str]:
    """Return one row of the table: the case, then in how many experiments each judge was wrong."""
    case = outcome.case
    spread = f"{case.concentration:g}" if isfinite(case.concentration) else "alike"
    told = [f"{case.people:,}", f"{case.share:.0%}", f"{case.rate:.1%}", spread]
    return [*told, *(f"{outcome.share(name):.1%}" for name in outcome.wrong)]


def _arm(rng: np.random.Generator, case: Case, worlds: int, people: int) -> list[list[Sums]]:
    """Return what is known of an arm at each look, of each world."""
    shape = (worlds, people)
    spread = case.concentration
    taste = rng.beta(case.rate * spread, (1 - case.rate) * spread, shape) if isfinite(spread) else case.rate
    eager = rng.gamma(1.0, VISITS, shape)
    begins = rng.integers(0, LOOKS, shape)
    trials, successes = np.zeros(shape), np.zeros(shape)
    found: list[list[Sums]] = [[] for _ in range(worlds)]
    for number in range(LOOKS):
        shown = rng.poisson(SHOWN * rng.poisson(eager * (begins <= number)))
        trials += shown
        successes += rng.binomial(shown, taste)
        for world in range(worlds):
            found[world].append(_sums(trials[world], successes[world]))
    return found


def _sums(trials: Floats, successes: Floats) -> Sums:
    there = trials > 0
    return Sums.of(trials[there], successes[there])
