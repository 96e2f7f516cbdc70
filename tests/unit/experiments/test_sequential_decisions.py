"""Always-valid intervals: hand-computed, never fooled by looking often, and soon sure of a clear effect."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pipelines.experiments.reading import Outcomes, Stretch
from pipelines.experiments.report import Choices, RateStep, steps_of
from pipelines.experiments.sequential import Decision, half_width, look
from registry.experiments.table import ExperimentState

START = datetime(2026, 6, 1, tzinfo=UTC)
STRETCH = Stretch("taste", ExperimentState.RUNNING, 0.5, START, START + timedelta(days=7), running=True)
CHOICES = Choices(decide_by="like_rate")
WORLDS = 200


def world(rng: np.random.Generator, lift: float, people: int = 600, looks: int = 24) -> Outcomes:
    """Draw people of very different taste who come back at many looks; the challenger's like rate is higher by lift."""
    challenged = rng.random(people) < 0.5
    taste = np.clip(rng.beta(1.5, 4.5, people) + np.where(challenged, lift, 0.0), 0, 1)
    begins = rng.integers(0, looks, people)
    who = np.repeat(np.arange(people), looks)
    when = np.tile(np.arange(looks), people)
    there = (when >= begins[who]) & (rng.random(len(who)) < 0.4)
    who, when = who[there], when[there]
    shown = rng.integers(1, 12, len(who))
    liked = rng.binomial(shown, taste[who]).astype(np.float64)
    return Outcomes(who, challenged[who], when, shown.astype(np.float64), liked, np.zeros(len(who)))


def decisions(lift: float, seed: int) -> list[list[RateStep]]:
    rng = np.random.default_rng(seed)
    return [steps_of(world(rng, lift), "like_rate", STRETCH, CHOICES) for _ in range(WORLDS)]


def test_the_interval_and_the_p_value_are_those_of_the_formula() -> None:
    # V = 0.0004 and tau = 0.02 give (V + tau^2) / V = 2.
    half = math.sqrt(0.0004 * 0.0008 / 0.0004 * (math.log(2) + 2 * math.log(20)))
    seen = look(0.05, 0.0004, 0.02, 0.05)
    assert half_width(0.0004, 0.02, 0.05) == pytest.approx(half) == pytest.approx(0.07313, abs=1e-5)
    assert (seen.low, seen.high) == (pytest.approx(0.05 - half), pytest.approx(0.05 + half))
    assert seen.p == pytest.approx(math.sqrt(2) * math.exp(-(0.05**2) * 0.0004 / (2 * 0.0004 * 0.0008)))


def test_the_p_value_and_the_interval_say_the_same() -> None:
    edge = half_width(0.0004, 0.02, 0.05)
    assert look(edge, 0.0004, 0.02, 0.05).p == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("difference", "said"), [(0.2, Decision.CHALLENGER), (-0.2, Decision.CHAMPION), (0.05, Decision.OPEN)]
)
def test_a_decision_is_the_side_of_zero_on_which_the_interval_lies(difference: float, said: Decision) -> None:
    assert look(difference, 0.0004, 0.02, 0.05).decision is said


@pytest.mark.parametrize(("difference", "variance"), [(math.nan, 0.1), (0.1, math.inf), (0.1, 0.0)])
def test_without_a_variance_nothing_is_decided(difference: float, variance: float) -> None:
    seen = look(difference, variance, 0.02, 0.05)
    assert (seen.decision, seen.p) == (Decision.OPEN, 1.0)


def test_equal_arms_are_rarely_told_apart_however_often_one_looks_and_a_usual_test_would_be_fooled() -> None:
    worlds = decisions(0.0, seed=11)
    wrong = np.mean([any(step.look.decision is not Decision.OPEN for step in steps) for steps in worlds])
    fooled = 0
    for steps in worlds:
        # What a 95 % interval of one look would have said: its half is 1.96 standard errors.
        errors = [_standard_error(step) for step in steps]
        fooled += any(abs(s.look.difference) > 1.96 * e for s, e in zip(steps, errors, strict=True))
    assert wrong < 0.05
    assert fooled / WORLDS > 0.08


def test_a_clear_effect_is_found_and_its_side_is_right() -> None:
    worlds = decisions(0.08, seed=12)
    last = [steps[-1].look.decision for steps in worlds]
    assert np.mean([said is Decision.CHALLENGER for said in last]) > 0.8
    assert Decision.CHAMPION not in last


def test_few_people_decide_nothing() -> None:
    rng = np.random.default_rng(13)
    assert steps_of(world(rng, 0.5, people=60), "like_rate", STRETCH, CHOICES) == []


def test_a_look_knows_only_what_was_known_then() -> None:
    rng = np.random.default_rng(14)
    whole = world(rng, 0.1)
    early = whole.looks < 12
    half = Outcomes(
        whole.user_ids[early],
        whole.challenged[early],
        whole.looks[early],
        whole.exposures[early],
        whole.likes[early],
        whole.matches[early],
    )
    of_whole = {step.at: step for step in steps_of(whole, "like_rate", STRETCH, CHOICES)}
    for step in steps_of(half, "like_rate", STRETCH, CHOICES)[:-12]:
        assert of_whole[step.at].look == step.look


def _standard_error(step: RateStep) -> float:
    """Recover the standard error from the width of the interval, by bisection."""
    tau, half = CHOICES.expected_effect * step.champion, step.look.high - step.look.difference
    low, high = 1e-12, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if half_width(middle, tau, CHOICES.alpha) < half else (low, middle)
    return math.sqrt(high)
