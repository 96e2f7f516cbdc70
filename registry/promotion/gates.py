"""What the gates said of a release: the report, where it is kept, and what the audit holds of it.

The whole report is a tag of the index, which every release has nearly to itself; the embedding and the ranker, shared
by many, carry its verdict in a few words. All three say it in their descriptions, for a person to read.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from registry.contracts import ArtifactKind, ReleaseVersions
from registry.errors import ForceWithoutReason, GatesNotPassed
from registry.store import ModelRegistry

Direction = Literal["higher", "lower", "within"]
Threshold = FiniteFloat | tuple[FiniteFloat, FiniteFloat]
_TAG: Final = "gates."
_HEADING: Final = "### Gates"
_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")
KEPT_REPORTS: Final = 10
"""Whole reports on one version: its tags travel with every look at its stage, so older ones become verdicts."""


class Tolerance(BaseModel):
    """How far a value may lie on the wrong side of Production's: a share of it, or so much in its own unit."""

    model_config = _FROZEN

    relative: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = None
    absolute: Annotated[FiniteFloat, Field(ge=0)] | None = None

    def room(self, production: float) -> float:
        """Return how far from Production's value a value may lie, in its own unit."""
        return abs(production) * self.relative if self.relative is not None else self.absolute or 0.0

    def __str__(self) -> str:
        return f"{self.relative:.0%}" if self.relative is not None else f"{self.absolute:g}"


class Bound(NamedTuple):
    """The lowest and the highest value that pass, by a threshold or by the tolerance against Production."""

    low: float
    high: float
    is_tolerance: bool


def bounds(
    direction: Direction, threshold: Threshold | None, tolerance: Tolerance | None, production: float | None
) -> list[Bound]:
    """Return every bound that a value is held against; a tolerance is one only where Production has a value."""
    found: list[Bound] = []
    if isinstance(threshold, tuple):
        found.append(Bound(*threshold, is_tolerance=False))
    elif threshold is not None:
        low, high = (threshold, math.inf) if direction == "higher" else (-math.inf, threshold)
        found.append(Bound(low, high, is_tolerance=False))
    if tolerance is not None and production is not None:
        room = tolerance.room(production)
        low = -math.inf if direction == "lower" else production - room
        high = math.inf if direction == "higher" else production + room
        found.append(Bound(low, high, is_tolerance=True))
    return found


class GateResult(BaseModel):
    """One gate's judgement; `why` is one sentence, `skipped` says that the gate does not apply to this release."""

    model_config = _FROZEN

    name: str
    metric: str
    value: FiniteFloat | None = None
    direction: Direction
    threshold: Threshold | None = None
    production: FiniteFloat | None = None
    tolerance: Tolerance | None = None
    passed: bool
    skipped: bool = False
    why: str

    @property
    def bounds(self) -> list[Bound]:
        """Return every bound that the value was held against."""
        return bounds(self.direction, self.threshold, self.tolerance, self.production)

    @property
    def verdict(self) -> str:
        """Return `passed`, `skipped` or `failed`."""
        if not self.passed:
            return "failed"
        return "skipped" if self.skipped else "passed"


class GateReport(BaseModel):
    """What every gate said of a release, by which policy, and against which release of Production."""

    model_config = _FROZEN

    release: str
    policy: str
    judged_at: AwareDatetime
    against: str | None = None
    results: Annotated[tuple[GateResult, ...], Field(min_length=1)]

    @property
    def passed(self) -> bool:
        """Say whether no gate failed."""
        return not self.failures()

    @property
    def verdict(self) -> str:
        """Return `passed`, or `failed` with the names of the gates."""
        failed = self.failures()
        return f"failed: {', '.join(result.name for result in failed)}" if failed else "passed"

    def failures(self) -> list[GateResult]:
        """Return the gates that failed."""
        return [result for result in self.results if not result.passed]

    def markdown(self) -> str:
        """Describe the report for a version's page: the verdict, each failure in its sentence, then all gates."""
        compared = f"compared with {self.against}" if self.against else "nothing in Production to compare with"
        lines = [
            f"Release `{self.release}`: **{self.verdict}** ({self.judged_at:%Y-%m-%d %H:%M} UTC, {compared})",
            *(f"* **{result.name}**: {result.why}" for result in self.failures()),
        ]
        rows = [f"| {result.name} | {result.verdict} | {result.why} |" for result in self.results]
        return "\n".join([_HEADING, "", *lines, "", "| gate | verdict | why |", "|---|---|---|", *rows])

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a report back; None for anything else, such as a verdict in words."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def write_report(registry: ModelRegistry, report: GateReport) -> None:
    """Write a report on the three versions of its release, the whole of it last; raise UnknownVersion."""
    versions = ReleaseVersions.parse(report.release)
    for kind in (ArtifactKind.EMBEDDING, ArtifactKind.RANKER, ArtifactKind.INDEX):
        held = registry.version(kind, versions[kind])
        before = held.description.partition(_HEADING)[0].rstrip()
        registry.describe(kind, held.version, f"{before}\n\n{report.markdown()}".lstrip())
        if kind is ArtifactKind.INDEX:
            _shorten(registry, versions, held.tags)
            registry.set_tag(kind, held.version, _TAG + report.release, report.model_dump_json(exclude_none=True))
        else:
            registry.set_tag(kind, held.version, _TAG + report.release, report.verdict)


def _shorten(registry: ModelRegistry, versions: ReleaseVersions, tags: Mapping[str, str]) -> None:
    """Leave only the verdict of reports beyond the newest."""
    others = [
        (report.judged_at, key, report)
        for key, value in tags.items()
        if key.startswith(_TAG) and key != _TAG + versions.release_id and (report := GateReport.parse(value))
    ]
    for _, key, report in sorted(others, key=lambda other: other[:2], reverse=True)[KEPT_REPORTS - 1 :]:
        registry.set_tag(ArtifactKind.INDEX, versions.index, key, report.verdict)


def read_report(registry: ModelRegistry, versions: ReleaseVersions) -> GateReport | None:
    """Return the report of a release, None if it was never judged or the report is no longer kept."""
    tags = registry.version(ArtifactKind.INDEX, versions.index).tags
    return GateReport.parse(tags.get(_TAG + versions.release_id, ""))


def require_passed(
    registry: ModelRegistry, versions: ReleaseVersions, *, force: bool = False, reason: str = ""
) -> dict[str, JsonValue]:
    """Return what the audit holds of the gates of a release that may be promoted.

    Raises GatesNotPassed unless the report is there and passed, or `force` is given. Raises ForceWithoutReason.
    """
    if force and not reason.strip():
        raise ForceWithoutReason(
            f"{versions.release_id} is not promoted past its gates without a reason: add `--reason` to `--force`."
        )
    report = read_report(registry, versions)
    forced = force and (report is None or not report.passed)
    if not forced:
        if report is None:
            raise GatesNotPassed(
                f"{versions.release_id} has not been judged by the gates: run `duet judge {versions.release_id}`, "
                "or give `--force` and `--reason`."
            )
        if not report.passed:
            failed = " ".join(f"{result.name}: {result.why}" for result in report.failures())
            raise GatesNotPassed(
                f"{versions.release_id} did not pass its gates and is not promoted without `--force` and `--reason`. "
                f"{failed}"
            )
    return _for_audit(report) | {"forced": forced}


def gates_of_observed(registry: ModelRegistry, versions: ReleaseVersions) -> dict[str, JsonValue]:
    """Return what the audit holds of the gates of a release that somebody moved by hand, past `promote`."""
    report = read_report(registry, versions)
    if report is not None and report.passed:
        return _for_audit(report)
    verdict = "failed" if report is not None else "not judged"
    return _for_audit(report) | {"honoured": f"{verdict}, honoured because coherent and verified"}


def _for_audit(report: GateReport | None) -> dict[str, JsonValue]:
    if report is None:
        return {"verdict": "not judged"}
    return {
        "verdict": report.verdict,
        "failures": {result.name: result.why for result in report.failures()},
        "policy": report.policy,
        "judged_at": report.judged_at.isoformat(),
        "against": report.against,
    }
