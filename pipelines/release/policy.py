"""The gates as data: `gates.yaml`, validated when it is loaded, and how one measured value is held against one gate.

A gate has a bound of its own, a tolerance against Production, or both. Where it does not apply it is skipped and says
why; what should have been measured and was not fails. Nothing here measures anything.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.release.errors import InvalidGates
from pipelines.results.store import combined_digest
from registry.promotion.gates import Bound, Direction, GateReport, GateResult, Threshold, Tolerance, bounds

DEFAULT_FILE: Final = Path(__file__).with_name("gates.yaml")
Count = Literal["people", "requesters", "decisions", "replays", "rows"]
COUNTS: Final[tuple[str, ...]] = get_args(Count)
METRICS: Final[dict[str, str]] = {
    "ndcg_at_20": "NDCG@20 of the served order on the held-out window",
    "gain_over_popularity": "upper end of the interval by which the lists are better than popularity's",
    "gain_over_first_stage": "upper end of the interval by which the lists are better than those of the factors alone",
    "match_precision_at_10": "share of the first ten that became mutual on the held-out window",
    "held_out_auc": "chance that the ranker scores a held-out like above a held-out pass",
    "calibration_error": "mean gap between predicted and observed share of likes on held-out decisions",
    "index_recall": "share of the exact nearest people that the index finds",
    "index_coverage": "share of the visible people whom the index holds",
    "shown_share": "different people in the lists, of as many as the lists have places for",
    "exposure_gini": "inequality of how often people appear in the lists, 0 to 1",
    "exposure_over_baselines": "inequality of exposure less that of the most unequal simpler order",
    "shown_over_baselines": "different people shown, as a multiple of the simpler order that shows fewest",
    "feature_drift_psi": "largest PSI of a feature between the ranker's rows and those of Production's",
    "prediction_drift_psi": "PSI of the ranker's probabilities against Production's on the same decisions",
    "latency_p50_ms": "median time to retrieve and rank for one requester, ms",
    "latency_p95_ms": "95th percentile of the time to retrieve and rank for one requester, ms",
    "latency_ratio": "median time per requester as a multiple of Production's on the same requests",
    "artifact_bytes": "size of the three artefacts, bytes",
    "bytes_per_person": "size of embedding and index per indexed person, bytes",
    "canary_agreement": "lowest share of a part's canary queries that are answered as when it was made",
}
COMPARISONS: Final = frozenset({"feature_drift_psi", "prediction_drift_psi", "latency_ratio"})
"""Metrics that say something only beside a release in Production."""
_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")
_NOISE: Final = 1e-9


class Gate(BaseModel):
    """One line of the policy."""

    model_config = _FROZEN

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
    meaning: Annotated[str, Field(min_length=1)]
    metric: str
    direction: Direction
    threshold: Threshold | None = None
    tolerance: Tolerance | None = None
    needs: dict[Count, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"`{metric}` is no metric; there are {', '.join(METRICS)}")
        return metric

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.threshold is None and self.tolerance is None:
            raise ValueError("give a `threshold`, a `tolerance` against Production, or both")
        if self.threshold is not None and isinstance(self.threshold, tuple) != (self.direction == "within"):
            raise ValueError("`threshold` is two numbers where the direction is `within`, else one")
        if isinstance(self.threshold, tuple) and self.threshold[0] > self.threshold[1]:
            raise ValueError("the first number of `threshold` must not exceed the second")
        if self.tolerance is not None and (self.tolerance.relative is None) == (self.tolerance.absolute is None):
            raise ValueError("`tolerance` is either `relative` or `absolute`")
        if self.tolerance is not None and self.metric in COMPARISONS:
            raise ValueError(f"`{self.metric}` is itself a comparison with Production: give a `threshold` only")
        return self


class Sampling(BaseModel):
    """How much is measured to judge a release."""

    model_config = _FROZEN

    held_out_people: Annotated[int, Field(ge=10, le=100_000)] = 1_000
    replayed_people: Annotated[int, Field(ge=10, le=100_000)] = 400
    timed_people: Annotated[int, Field(ge=5, le=10_000)] = 200
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7


class Policy(BaseModel):
    """Every gate, and how much is measured for them."""

    model_config = _FROZEN

    sampling: Sampling = Field(default_factory=Sampling)
    gates: Annotated[tuple[Gate, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [gate.name for gate in self.gates]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two gates are named `{twice[0]}`")
        return self

    @property
    def digest(self) -> str:
        """Return the sha256 (hex) of the policy."""
        return combined_digest(self.model_dump(mode="json"))


@dataclass(frozen=True)
class Measurement:
    """A value of the candidate, Production's where both were measured alike, and what a reader wants to know of it."""

    value: float
    production: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Measured:
    """All that was measured of a release: by metric, or why not by metric; `counts` says on how much.

    `unloadable` says why what stands in Production, `against`, could not be loaded to compare with; `uncompared` says
    by metric why that one was not compared, though it should have been.
    """

    values: Mapping[str, Measurement]
    counts: Mapping[str, int]
    missing: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    unloadable: str | None = None
    uncompared: Mapping[str, str] = field(default_factory=dict)


def load_policy(path: Path | None = None) -> Policy:
    """Read the policy of a file, or the one that comes with Duet.

    Raises:
        InvalidGates: the file cannot be read, or a gate in it says something impossible.
    """
    path = path or DEFAULT_FILE
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidGates(f"the gates in `{path}` cannot be read: {' '.join(str(error).split())}") from error
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise InvalidGates(f"the gates in `{path}` are refused: {_sentence(error, content)}") from error


def _sentence(error: ValidationError, content: Any) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    told = first["msg"].removeprefix("Value error, ")
    subject = "the document"
    if where[:1] == ["gates"] and len(where) > 1 and isinstance(content, dict):
        gate = content["gates"][int(where[1])]
        name = gate.get("name") if isinstance(gate, dict) else None
        subject = f"gate `{name}`" if name else f"gate number {int(where[1]) + 1}"
        where = where[2:]
    shown = f"`{'.'.join(where)}`: " if where else ""
    return f"{subject}: {shown}{told}"


def judge(policy: Policy, measured: Measured, release: str, judged_at: Any) -> GateReport:
    """Hold a release against every gate."""
    return GateReport(
        release=release,
        policy=policy.digest,
        judged_at=judged_at,
        against=measured.against if measured.unloadable is None else f"{measured.against}, which cannot be loaded",
        results=tuple(judge_gate(gate, measured) for gate in policy.gates),
    )


def judge_gate(gate: Gate, measured: Measured) -> GateResult:
    """Hold what was measured against one gate."""
    found = measured.values.get(gate.metric)
    usable = found is not None and math.isfinite(found.value)
    base: dict[str, Any] = {
        "name": gate.name,
        "metric": gate.metric,
        "direction": gate.direction,
        "threshold": gate.threshold,
        "tolerance": gate.tolerance,
        "value": found.value if found is not None and usable else None,
        "production": _finite(found.production) if found is not None else None,
    }
    unable = measured.unloadable or measured.uncompared.get(gate.metric)
    if unable is not None and (gate.tolerance is not None or gate.metric in COMPARISONS):
        # Never "nothing to compare with": what nobody could compare must not pass by itself.
        return GateResult(**base, passed=False, why=f"It could not be compared: {unable}")
    if (reason := _not_applicable(gate, measured)) is not None:
        return GateResult(**base, passed=True, skipped=True, why=f"Not applicable: {reason}.")
    if found is None or not usable:
        reason = measured.missing.get(gate.metric, "nothing gives it a value")
        return GateResult(**base, passed=False, why=f"`{gate.metric}` could not be measured: {reason}.")
    passed, why = _held(gate, found)
    note = f"; {found.note}" if found.note else ""
    return GateResult(**base, passed=passed, why=f"{why}{note}.")


def _not_applicable(gate: Gate, measured: Measured) -> str | None:
    for what, least in gate.needs.items():
        present = measured.counts.get(what, 0)
        if present < least:
            return f"{present} {what}, needs {least}"
    if measured.against is None and (gate.metric in COMPARISONS or gate.threshold is None):
        return "nothing stands in Production to compare with"
    if gate.metric in COMPARISONS and gate.metric in measured.missing:
        return measured.missing[gate.metric]
    found = measured.values.get(gate.metric)
    if gate.threshold is None and found is not None and _finite(found.production) is None:
        return f"{measured.against} in Production has no comparable value"
    return None


def _held(gate: Gate, found: Measurement) -> tuple[bool, str]:
    subject = f"`{gate.metric}` is {_number(found.value)}"
    production = _finite(found.production)
    told = []
    for bound in bounds(gate.direction, gate.threshold, gate.tolerance, production):
        whose = _whose(gate, production) if bound.is_tolerance else ""
        # Rounding in the last digits must not decide.
        slack = _NOISE * max(abs(found.value), 1.0)
        if found.value < bound.low - slack:
            return False, f"{subject}, below {_number(bound.low)}{whose}"
        if found.value > bound.high + slack:
            return False, f"{subject}, above {_number(bound.high)}{whose}"
        told.append(f"{_range(bound)}{whose}")
    return True, f"{subject}, {' and '.join(told)}"


def asked(gate: Gate) -> str:
    """Say what a value must be, such as `at least 0.55 and at most 0.03 below Production's`."""
    wanted = [] if gate.threshold is None else [_range(bounds(gate.direction, gate.threshold, None, None)[0])]
    if gate.tolerance is not None:
        side = {"higher": "at most {} below", "lower": "at most {} above", "within": "within {} of"}[gate.direction]
        wanted.append(f"{side.format(gate.tolerance)} Production's")
    return " and ".join(wanted)


def _whose(gate: Gate, production: float | None) -> str:
    sign = {"higher": "less", "lower": "plus", "within": "give or take"}[gate.direction]
    return f" (Production's {_number(production or 0.0)} {sign} {gate.tolerance})"


def _range(bound: Bound) -> str:
    if bound.low == -math.inf:
        return f"at most {_number(bound.high)}"
    if bound.high == math.inf:
        return f"at least {_number(bound.low)}"
    return f"between {_number(bound.low)} and {_number(bound.high)}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
