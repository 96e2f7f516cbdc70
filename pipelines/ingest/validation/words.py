"""Say what a failed expectation means for a person: what the data show, and which setting lets it pass if it is right.

An expectation names a column and a range; the reader has to know what the number stands for and why it is refused.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from infra.clock import EARLIEST
from pipelines.ingest.validation.config import ValidationConfig
from pipelines.ingest.validation.frames import Facts
from pipelines.ingest.validation.run import ExpectationOutcome, ValidationReport


def in_words(
    table: str,
    report: ValidationReport,
    *,
    facts: Facts,
    accepted: Facts | None,
    as_of: datetime,
    config: ValidationConfig,
) -> ValidationReport:
    """Return the report with a sentence for each failure that has one; `table` is `people` or `interactions`."""
    before = accepted or {}
    outcomes = []
    for found in report.outcomes:
        told = "" if found.passed else _sentence(table, found, facts, before, as_of=as_of, config=config)
        outcomes.append(replace(found, told=told))
    return replace(report, outcomes=outcomes)


def _sentence(
    table: str,
    found: ExpectationOutcome,
    facts: Facts,
    before: Mapping[str, object],
    *,
    as_of: datetime,
    config: ValidationConfig,
) -> str:
    if found.column == "age_years" and as_of.year <= EARLIEST.year + 1:
        return (
            f"the data end in {as_of:%B %Y}, when {found.unexpected:,} of {found.checked:,} people were not born: is "
            "the `unit` of the times right (seconds that are read as milliseconds land in 1970)?"
        )
    if found.column == "like_rate":
        return _like_rate(facts, before, config)
    if found.column == "rows":
        return _rows(table, facts, before, config)
    if found.column == "silent_days":
        return (
            f"the newest interaction is {_number(facts.get('silent_days')):,.1f} days older than the instant of the "
            f"run; if that is right: --set snapshots.max_silence_days={_number(facts.get('silent_days')) + 1:.0f}"
        )
    return ""


def _like_rate(facts: Facts, before: Mapping[str, object], config: ValidationConfig) -> str:
    if facts.get("like_rate") is None:
        rows = _number(facts.get("rows"))
        return f"there is no like and no pass among the {rows:,.0f} interactions: import what people decided"
    return (
        f"the share of likes went from {_number(before.get('like_rate')):.2f} to {_number(facts.get('like_rate')):.2f} "
        f"since the last accepted snapshot, more than {config.max_like_rate_drift:g}; if that is right: "
        "--set snapshots.max_like_rate_drift=1"
    )


def _rows(table: str, facts: Facts, before: Mapping[str, object], config: ValidationConfig) -> str:
    now = _number(facts.get("rows"))
    if not isinstance(before.get("rows"), int):
        return f"there are {now:,.0f} {table}, too few to learn from: import more"
    return (
        f"there are {now:,.0f} {table}, and {_number(before.get('rows')):,.0f} in the last accepted snapshot, of which "
        f"{config.max_volume_drop:.0%} may be missing; if that is right: --set snapshots.max_volume_drop=1"
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
