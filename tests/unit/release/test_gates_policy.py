"""The gates as data: what a file may say, and how one value is held against one gate."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.release.errors import InvalidGates
from pipelines.release.policy import METRICS, Gate, Measured, Measurement, Policy, asked, judge, judge_gate, load_policy
from registry.promotion.gates import GateReport

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def gate(**fields: Any) -> Gate:
    base = {"name": "finds", "meaning": "Finds people.", "metric": "index_recall", "direction": "higher"}
    return Gate.model_validate({**base, **fields})


def measured(value: float | None, production: float | None = None, **counts: int) -> Measured:
    values = {} if value is None else {"index_recall": Measurement(value, production)}
    return Measured(values, counts, against=None if production is None else "e1-i1-r1")


def refused(tmp_path: Path, *gates: Any) -> str:
    path = tmp_path / "gates.yaml"
    path.write_text(yaml.safe_dump({"gates": list(gates)}))
    with pytest.raises(InvalidGates) as refusal:
        load_policy(path)
    return str(refusal.value)


def test_the_gates_that_come_with_duet_cover_every_metric_once_for_all_releases() -> None:
    policy = load_policy()
    judged = {gate.metric for gate in policy.gates}
    assert set(METRICS) - judged == {"latency_p50_ms", "shown_share", "exposure_gini"}, (
        "these are for gates of one's own"
    )
    assert load_policy().digest == policy.digest
    changed = policy.model_copy(update={"gates": policy.gates[1:]})
    assert changed.digest != policy.digest


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"threshold": 0.9}, "at least 0.9"),
        ({"threshold": 0.9, "direction": "lower"}, "at most 0.9"),
        ({"threshold": [1, 20_000], "direction": "within"}, "between 1 and 20,000"),
        ({"tolerance": {"relative": 0.1}}, "at most 10% below Production's"),
        ({"tolerance": {"relative": 0.1}, "direction": "within"}, "within 10% of Production's"),
        (
            {"threshold": 0.15, "tolerance": {"absolute": 0.05}, "direction": "lower"},
            "at most 0.15 and at most 0.05 above Production's",
        ),
    ],
)
def test_what_a_gate_asks_is_said_in_words(fields: dict[str, Any], sentence: str) -> None:
    assert asked(gate(**fields)) == sentence


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"metric": "recall"}, "gate `finds`: `metric`: `recall` is no metric; there are ndcg_at_20,"),
        ({"threshold": "high"}, "gate `finds`: `threshold"),
        ({}, "gate `finds`: give a `threshold`, a `tolerance` against Production, or both"),
        ({"threshold": 1, "direction": "within"}, "gate `finds`: `threshold` is two numbers where"),
        ({"threshold": [1, 2]}, "gate `finds`: `threshold` is two numbers where"),
        ({"threshold": [2, 1], "direction": "within"}, "the first number of `threshold` must not exceed the second"),
        ({"tolerance": {}}, "gate `finds`: `tolerance` is either `relative` or `absolute`"),
        ({"tolerance": {"relative": 0.1, "absolute": 1}}, "gate `finds`: `tolerance` is either"),
        ({"tolerance": {"relative": -1}}, "gate `finds`: `tolerance.relative`"),
        ({"threshold": 1, "needs": {"cats": 3}}, "gate `finds`: `needs.cats"),
        ({"threshold": 1, "colour": "red"}, "gate `finds`: `colour`: Extra inputs are not permitted"),
        ({"metric": "latency_ratio", "tolerance": {"relative": 1}}, "is itself a comparison with Production"),
    ],
)
def test_a_gate_that_says_something_impossible_is_refused_by_name(
    fields: dict[str, Any], told: str, tmp_path: Path
) -> None:
    base = {"name": "finds", "meaning": "Finds.", "metric": "index_recall", "direction": "higher"}
    said = refused(tmp_path, {**base, **fields})
    assert told in said
    assert "\n" not in said


def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    fine = gate(threshold=1).model_dump(mode="json", exclude_none=True)
    assert "two gates are named `finds`" in refused(tmp_path, fine, fine)
    assert "gate number 1" in refused(tmp_path, {"threshold": 1})
    assert "gate number 2" in refused(tmp_path, fine, "nonsense")
    for content in ("gates: [", "- a", ""):
        (tmp_path / "gates.yaml").write_text(content)
        with pytest.raises(InvalidGates, match=r"gates\.yaml"):
            load_policy(tmp_path / "gates.yaml")
    with pytest.raises(InvalidGates, match="cannot be read"):
        load_policy(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("fields", "value", "production", "passed", "why"),
    [
        ({"threshold": 0.9}, 0.95, None, True, "`index_recall` is 0.95, at least 0.9."),
        ({"threshold": 0.9}, 0.85, None, False, "`index_recall` is 0.85, below 0.9."),
        ({"threshold": 0.9, "direction": "lower"}, 0.95, None, False, "`index_recall` is 0.95, above 0.9."),
        ({"threshold": 0.9, "direction": "lower"}, 0.9, None, True, "`index_recall` is 0.9, at most 0.9."),
        ({"threshold": [0.2, 0.4], "direction": "within"}, 0.5, None, False, "is 0.5, above 0.4."),
        ({"threshold": [0.2, 0.4], "direction": "within"}, 0.3, None, True, "is 0.3, between 0.2 and 0.4."),
        ({"tolerance": {"relative": 0.1}}, 0.85, 1.0, False, "is 0.85, below 0.9 (Production's 1 less 10%)."),
        ({"tolerance": {"relative": 0.1}}, 0.95, 1.0, True, "is 0.95, at least 0.9 (Production's 1 less 10%)."),
        (
            {"tolerance": {"absolute": 0.2}, "direction": "lower"},
            0.75,
            0.5,
            False,
            "is 0.75, above 0.7 (Production's 0.5 plus 0.2).",
        ),
        (
            {"tolerance": {"absolute": 0.2}, "direction": "within"},
            0.25,
            0.5,
            False,
            "is 0.25, below 0.3 (Production's 0.5 give or take 0.2).",
        ),
        (
            {"threshold": 0.5, "tolerance": {"absolute": 0.1}},
            0.7,
            0.9,
            False,
            "is 0.7, below 0.8 (Production's 0.9 less 0.1).",
        ),
    ],
)
def test_a_value_is_held_against_threshold_and_tolerance(
    fields: dict[str, Any], value: float, production: float | None, *, passed: bool, why: str
) -> None:
    result = judge_gate(gate(**fields), measured(value, production))
    assert (result.passed, result.skipped) == (passed, False)
    assert result.why.endswith(why)
    assert result.value == value


def test_without_production_only_the_threshold_counts() -> None:
    both = gate(threshold=0.5, tolerance={"absolute": 0.1})
    assert judge_gate(both, measured(0.6)).why == "`index_recall` is 0.6, at least 0.5."
    result = judge_gate(gate(tolerance={"absolute": 0.1}), measured(0.6))
    assert (result.passed, result.skipped) == (True, True)
    assert result.why == "Not applicable: nothing stands in Production to compare with."
    drift = judge_gate(gate(metric="feature_drift_psi", threshold=0.25), measured(0.6))
    assert drift.skipped


def test_a_production_without_a_comparable_value_is_not_compared_with() -> None:
    apart = Measured(
        {"index_recall": Measurement(0.6)},
        {},
        missing={"prediction_drift_psi": "Production has learned from them"},
        against="e1-i1-r1",
    )
    result = judge_gate(gate(tolerance={"absolute": 0.1}), apart)
    assert result.why == "Not applicable: e1-i1-r1 in Production has no comparable value."
    drift = judge_gate(gate(metric="prediction_drift_psi", direction="lower", threshold=0.25), apart)
    assert (drift.skipped, drift.why) == (True, "Not applicable: Production has learned from them.")


def test_a_gate_that_needs_more_people_is_skipped_and_says_so() -> None:
    needy = gate(threshold=0.9, needs={"people": 1_000})
    result = judge_gate(needy, measured(0.1, people=150))
    assert (result.passed, result.skipped) == (True, True)
    assert result.why == "Not applicable: 150 people, needs 1000."
    assert result.verdict == "skipped"
    assert not judge_gate(needy, measured(0.1, people=1_000)).passed


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_could_not_be_measured_fails(value: float | None) -> None:
    result = judge_gate(gate(threshold=0.9), measured(value))
    assert not result.passed
    assert result.why == "`index_recall` could not be measured: nothing gives it a value."
    assert result.value is None


def test_a_report_says_by_which_policy_and_against_what() -> None:
    policy = Policy(gates=(gate(threshold=0.9), gate(name="keeps", tolerance={"absolute": 0.01})))
    report = judge(policy, measured(0.8, 0.9), "e2-i2-r2", NOW)
    assert (report.policy, report.against, report.passed) == (policy.digest, "e1-i1-r1", False)
    assert report.verdict == "failed: finds, keeps"
    assert GateReport.parse(report.model_dump_json(exclude_none=True)) == report
    assert "* **keeps**: `index_recall` is 0.8, below 0.89" in report.markdown()
    assert GateReport.parse("failed: finds") is None


def test_a_production_that_cannot_be_loaded_fails_what_compares_with_it_whatever_the_gate_needs() -> None:
    found = Measured(
        {"index_recall": Measurement(0.95)}, {"people": 3}, against="e1-i1-r1", unloadable="e1-i1-r1 cannot be loaded."
    )
    own = gate(name="own", threshold=0.9)
    beside = gate(name="beside", threshold=0.9, tolerance={"relative": 0.1}, needs={"people": 1_000})
    drift = gate(name="drift", metric="latency_ratio", threshold=2, direction="lower")
    report = judge(Policy(gates=(own, beside, drift)), found, "e2-i2-r2", NOW)
    assert [result.name for result in report.failures()] == ["beside", "drift"]
    assert {result.why for result in report.failures()} == {"It could not be compared: e1-i1-r1 cannot be loaded."}
    assert report.against == "e1-i1-r1, which cannot be loaded"
    assert "nothing in Production" not in report.markdown()
