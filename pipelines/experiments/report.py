"""The read-out of one experiment: figures of each arm, the sample ratio, and the difference at every look so far."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

import numpy as np

from pipelines.experiments.clustered import (
    ENOUGH_EVENTS,
    Estimate,
    Floats,
    Pair,
    Sums,
    quantile_estimates,
    rate_estimate,
    sample_ratio_p,
)
from pipelines.experiments.counterfactual import Counterfactual
from pipelines.experiments.reading import CHALLENGER, CHAMPION, SHADOW, Answers, Outcomes, PeopleCounts, Stretch
from pipelines.experiments.sequential import Decision, Look, look
from registry.experiments.table import ExperimentState

LOOKS: Final = 24
QUANTILES: Final = (0.5, 0.95, 0.99)
LEVELS: Final = {1: "full", 2: "content", 3: "random", 4: "empty"}
MEASURES: Final = ("like_rate", "match_rate")
ENOUGH_PEOPLE: Final = 50
"""People of each arm from which on a difference is about normal."""
RATIO_ALPHA: Final = 0.001
"""Below this p-value the sample ratio counts as broken, and nothing else is believed."""


@dataclass(frozen=True)
class Arm:
    """The figures of one arm by name; rates are shares, latencies milliseconds. `releases` answered its people."""

    name: str
    people: int
    answers: int
    exposures: int
    figures: dict[str, Estimate]
    releases: tuple[str, ...]


@dataclass(frozen=True)
class RateStep:
    """A look at the difference of a rate, challenger less champion, at one instant."""

    at: datetime
    look: Look
    champion: float
    challenger: float


@dataclass(frozen=True)
class Choices:
    """How an experiment is judged: by which rate, how surely, and how large an effect is expected, as a share."""

    decide_by: str = "match_rate"
    alpha: float = 0.05
    expected_effect: float = 0.1
    window: timedelta = timedelta(hours=1)


@dataclass(frozen=True)
class ExperimentReport:
    """What is known of an experiment; `steps` by measure, oldest first.

    `counterfactual` says what a shadow would have reached, None where none ranked.
    """

    stretch: Stretch
    choices: Choices
    people: PeopleCounts
    arms: list[Arm]
    sample_ratio_p: float | None
    steps: dict[str, list[RateStep]]
    counterfactual: Counterfactual | None = None

    @property
    def ratio_is_broken(self) -> bool:
        """Tell whether people are distributed over the arms otherwise than the share says."""
        return self.sample_ratio_p is not None and self.sample_ratio_p < RATIO_ALPHA

    @property
    def decision(self) -> Decision:
        """Return what may be said now by the measure that decides; nothing on a broken sample ratio."""
        steps = self.steps[self.choices.decide_by]
        return Decision.OPEN if self.ratio_is_broken or not steps else steps[-1].look.decision

    @property
    def sentence(self) -> str:
        """Say the decision and what it rests on."""
        measure = self.choices.decide_by
        named = measure.replace("_", " ")
        if self.ratio_is_broken:
            return (
                f"{Decision.OPEN}: {self.people.champion} and {self.people.challenger} people do not fit a share of "
                f"{self.stretch.share:.1%} (p = {self.sample_ratio_p:.2g}), so the arms cannot be compared."
            )
        if not self.steps[measure]:
            return f"{Decision.OPEN}: fewer than {ENOUGH_PEOPLE} people of each arm have a known outcome."
        last = self.steps[measure][-1].look
        return (
            f"{last.decision}: {named} of the challenger less the champion's is {last.difference:+.4f}, between "
            f"{last.low:+.4f} and {last.high:+.4f} however often one looks ({1 - self.choices.alpha:.0%})."
        )


def build_report(
    stretch: Stretch,
    *,
    people: PeopleCounts,
    answers: Answers,
    outcomes: Outcomes,
    choices: Choices,
    rng: np.random.Generator,
    counterfactual: Counterfactual | None = None,
) -> ExperimentReport:
    """Compute the read-out."""
    names = [CHAMPION, CHALLENGER, *([SHADOW] if (answers.arms == SHADOW).any() else [])]
    counts = {CHAMPION: people.champion, CHALLENGER: people.challenger}
    return ExperimentReport(
        stretch,
        choices,
        people,
        [_arm(name, counts.get(name), answers, outcomes, alpha=choices.alpha, rng=rng) for name in names],
        sample_ratio_p(people.champion, people.challenger, stretch.share)
        if stretch.state is ExperimentState.RUNNING
        else None,
        {measure: steps_of(outcomes, measure, stretch, choices) for measure in MEASURES},
        counterfactual,
    )


def steps_of(
    outcomes: Outcomes, measure: str, stretch: Stretch, choices: Choices, looks: int = LOOKS
) -> list[RateStep]:
    """Return a look at the end of each step from which on both arms have enough people.

    The scale of the expected effect is a share of the champion's rate.
    """
    _, codes = np.unique(outcomes.user_ids, return_inverse=True)
    n = int(codes.max()) + 1 if len(codes) else 0
    trials, successes = np.zeros(n), np.zeros(n)
    challenged = np.zeros(n, dtype=np.bool_)
    challenged[codes] = outcomes.challenged
    won = outcomes.likes if measure == "like_rate" else outcomes.matches
    steps = []
    for step in range(looks):
        new = outcomes.looks == step
        np.add.at(trials, codes[new], outcomes.exposures[new])
        np.add.at(successes, codes[new], won[new])
        champion, challenger = (_present(trials, successes, arm) for arm in (~challenged, challenged))
        if min(champion.people, challenger.people) < ENOUGH_PEOPLE:
            continue
        at = stretch.since + (stretch.until - stretch.since) * (step + 1) / looks
        steps.append(RateStep(at, look_at(champion, challenger, choices), champion.rate, challenger.rate))
    return steps


def look_at(champion: Sums, challenger: Sums, choices: Choices) -> Look:
    """Return what may be said of two arms now: nothing before enough independent events can be expected in both."""
    arms = Pair(challenger, champion)
    variance = arms.variance(champion) + arms.variance(challenger)
    return look(
        challenger.rate - champion.rate,
        variance if arms.effective_events >= ENOUGH_EVENTS else inf,
        choices.expected_effect * max(champion.rate, 1 / champion.trials),
        choices.alpha,
    )


def _present(trials: Floats, successes: Floats, of: np.ndarray[Any, np.dtype[np.bool_]]) -> Sums:
    there = of & (trials > 0)
    return Sums.of(trials[there], successes[there])


def _arm(
    name: str, people: int | None, answers: Answers, outcomes: Outcomes, *, alpha: float, rng: np.random.Generator
) -> Arm:
    mine = answers.arms == name
    ids = answers.user_ids[mine]
    figures = {}
    known = (outcomes.challenged == (name == CHALLENGER)) if name != SHADOW else np.zeros(len(outcomes.looks), np.bool_)
    for measure, won in (("like_rate", outcomes.likes), ("match_rate", outcomes.matches)):
        figures[measure] = _rate(outcomes.user_ids[known], outcomes.exposures[known], won[known], alpha)
    one = np.ones(len(ids))
    figures["error_rate"] = _rate(ids, one, answers.errors[mine].astype(np.float64), alpha)
    for level, label in LEVELS.items():
        figures[f"level_{label}"] = _rate(ids, one, (answers.levels[mine] == level).astype(np.float64), alpha)
    figures["cached"] = _rate(ids, one, answers.cached[mine].astype(np.float64), alpha)
    figures["by_other_arm"] = _rate(ids, one, (~answers.by_arm[mine]).astype(np.float64), alpha)
    made = mine & ~answers.cached  # what a release itself takes: an answer kept in a cache says nothing of it
    quantiles = quantile_estimates(answers.took_ms[made], answers.user_ids[made], QUANTILES, alpha, rng)
    figures |= {f"p{round(100 * q)}_ms": found for q, found in zip(QUANTILES, quantiles, strict=True)}
    n_people = len(np.unique(ids)) if people is None else people
    releases = tuple(np.unique(answers.releases[mine]).tolist())
    return Arm(name, n_people, int(mine.sum()), int(outcomes.exposures[known].sum()), figures, releases)


def _rate(user_ids: np.ndarray[Any, np.dtype[np.int64]], trials: Floats, successes: Floats, alpha: float) -> Estimate:
    people, codes = np.unique(user_ids, return_inverse=True)
    n = len(people)
    by_person = [np.bincount(codes, weights, n).astype(np.float64) for weights in (trials, successes)]
    return rate_estimate(Sums.of(*by_person), alpha)
