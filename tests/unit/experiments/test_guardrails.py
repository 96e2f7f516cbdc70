"""Guardrails that a person can read and change, and judgements that noise does not trigger."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.experiments.clustered import Sums
from pipelines.experiments.errors import UnusableGuardrails
from pipelines.experiments.guardrails import GUARDRAILS, Guardrail, Guardrails, judge, load_guardrails
from pipelines.experiments.reading import CHALLENGER, CHAMPION, ERRORS, SHADOW
from serving.experiments import shadow
from serving.experiments.assignment import Variant
from serving.reasons import Reason

RAILS = load_guardrails()
ERROR_RATE = Guardrail(metric="error_rate", worse="higher", margin=0.02)
LIKE_RATE = Guardrail(metric="like_rate", worse="lower", factor=0.7)


def crowd(rng: np.random.Generator, rate: float, people: int = 100) -> Sums:
    """Draw people who ask often or seldom and fare differently, with this mean rate."""
    trials = rng.integers(1, 20, people).astype(np.float64)
    own = rng.beta(4 * rate, 4 * (1 - rate), people) if 0 < rate < 1 else np.full(people, rate)
    return Sums.of(trials, rng.binomial(trials.astype(int), own).astype(np.float64))


def exactly(rate: float, people: int = 100, each: int = 10) -> Sums:
    return Sums.of(np.full(people, float(each)), np.full(people, each * rate))


def test_the_words_of_answers_are_those_of_serving() -> None:
    assert {CHAMPION, CHALLENGER} == set(Variant)
    assert shadow.SHADOW_VARIANT == SHADOW
    assert set(ERRORS) < {reason.value for reason in Reason}


def test_a_limit_is_a_factor_of_the_other_side_and_a_margin_on_the_wrong_side() -> None:
    assert ERROR_RATE.limit(0.01) == pytest.approx(0.03)
    assert LIKE_RATE.limit(0.5) == pytest.approx(0.35)
    assert Guardrail(metric="like_rate", worse="lower", margin=0.1).limit(0.5) == pytest.approx(0.4)
    assert Guardrail(metric="slow_rate", worse="higher", factor=2, margin=0.05).limit(0.5) == pytest.approx(0.05)


def test_a_challenger_that_fails_is_beyond_its_guardrail_and_one_within_the_margin_is_not() -> None:
    assert judge(RAILS, ERROR_RATE, exactly(1.0), exactly(0.0), 0).broken
    assert judge(RAILS, ERROR_RATE, exactly(0.3), exactly(0.0), 0).broken
    assert not judge(RAILS, ERROR_RATE, exactly(0.02), exactly(0.0), 0).broken


def test_fewer_likes_are_worse_and_more_are_not() -> None:
    assert judge(RAILS, LIKE_RATE, exactly(0.1), exactly(0.5), 0).broken
    assert not judge(RAILS, LIKE_RATE, exactly(0.4), exactly(0.5), 0).broken
    assert not judge(RAILS, LIKE_RATE, exactly(0.9), exactly(0.5), 0).broken


@pytest.mark.parametrize(
    ("subject", "other"),
    [
        (exactly(1.0, people=9), exactly(0.0)),  # 90 answers
        (exactly(1.0), exactly(0.0, people=9)),
        (exactly(1.0, people=19, each=50), exactly(0.0)),  # answers enough, people too few
    ],
)
def test_too_few_answers_or_people_on_either_side_judge_nobody(subject: Sums, other: Sums) -> None:
    found = judge(RAILS, ERROR_RATE, subject, other, 0)
    assert (found.enough, found.broken, str(found)) == (False, False, "error_rate: too few yet")
    assert found.numbers()["bound"] is None


def test_the_chances_of_a_false_alarm_in_all_windows_of_all_guardrails_add_up_to_alpha() -> None:
    total = sum(RAILS.alpha_of(window) for window in range(100_000)) * len(RAILS.guardrails)
    assert total == pytest.approx(RAILS.alpha, rel=1e-4)


def test_noise_ends_no_experiment_however_often_the_guard_looks() -> None:
    rng = np.random.default_rng(5)
    rails = RAILS.model_copy(update={"alpha": 0.2, "minimum_answers": 100})  # as rash as can be tested
    at_the_limit = Guardrail(metric="error_rate", worse="higher")
    false_alarms = 0
    for _ in range(150):
        trials, failed = np.zeros((2, 150)), np.zeros((2, 150))
        own = rng.beta(0.4, 1.6, (2, 150))
        alarmed = False
        for _ in range(20):
            new = rng.poisson(1.0, (2, 150))
            trials += new
            failed += rng.binomial(new, own)
            sides = [Sums.of(trials[side][trials[side] > 0], failed[side][trials[side] > 0]) for side in (0, 1)]
            alarmed = alarmed or judge(rails, at_the_limit, *sides, 0).broken
        false_alarms += alarmed
    assert false_alarms / 150 < 0.2 / len(RAILS.guardrails)


def test_a_clear_fault_is_seen_in_a_small_sample() -> None:
    rng = np.random.default_rng(6)
    seen = [judge(RAILS, ERROR_RATE, crowd(rng, 0.4, 40), crowd(rng, 0.01, 400), 3).broken for _ in range(100)]
    assert np.mean(seen) > 0.95


def test_the_file_beside_the_code_says_what_it_must() -> None:
    assert {rail.metric for rail in RAILS.guardrails} == {"error_rate", "below_full_rate", "slow_rate", "like_rate"}
    assert all(rail.worse == ("lower" if rail.metric == "like_rate" else "higher") for rail in RAILS.guardrails)


def test_another_file_replaces_it(tmp_path: Path) -> None:
    own = yaml.safe_load(GUARDRAILS.read_text())
    own["guardrails"] = [{"metric": "error_rate", "worse": "higher", "margin": 0.5}]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(own))
    assert load_guardrails(file).of("like_rate") is None
    assert load_guardrails(file).guardrails[0].margin == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha": 2}, "`alpha`: Input should be less than or equal to 0.5"),
        ({"typo": 1}, "`typo`: Extra inputs"),
        ({"guardrails": []}, "`guardrails`"),
        ({"guardrails": [{"metric": "luck", "worse": "higher"}]}, "`guardrails.0.metric`"),
        ({"guardrails": [{"metric": "error_rate", "worse": "higher"}] * 2}, "more than one guardrail"),
        ({"alpha": math.nan}, "`alpha`"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_what_is_wrong(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(GUARDRAILS.read_text()), **change}))
    with pytest.raises(UnusableGuardrails, match=said):
        load_guardrails(file)


def test_a_file_that_is_not_there_or_is_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableGuardrails, match="cannot be read"):
        load_guardrails(tmp_path / "none.yaml")
    (tmp_path / "torn.yaml").write_text("guardrails: [")
    with pytest.raises(UnusableGuardrails, match="cannot be read"):
        load_guardrails(tmp_path / "torn.yaml")
    assert Guardrails.model_fields["alpha"].is_required()
