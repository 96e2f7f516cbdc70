"""What must hold for the snapshots. A failing blocking check fails the step, so nothing downstream starts.

The checks belong to the step that takes the snapshots: nobody can leave them out, and a snapshot that fails them
never becomes the one that later steps read.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from pipelines.ingest.config import SnapshotConfig
from pipelines.ingest.snapshots import RunInstant
from pipelines.ingest.validation.frames import Facts
from pipelines.ingest.validation.run import ValidationReport
from pipelines.presentation import path, table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

PEOPLE_CHECK = dg.AssetCheckSpec(
    "people_expectations",
    asset="people",
    blocking=True,
    description="Great Expectations: types, ranges, uniqueness and volume of people.",
)
INTERACTIONS_CHECK = dg.AssetCheckSpec(
    "interactions_expectations",
    asset="interactions",
    blocking=True,
    description="Great Expectations: types, ranges, references, freshness, volume and like rate of interactions.",
)
LIVE_CHECK = dg.AssetCheckSpec(
    "interactions_are_live",
    asset="interactions",
    blocking=False,
    description="Warns when the data are historical: the run then works as of the end of the data.",
)
CHECK_SPECS = [PEOPLE_CHECK, INTERACTIONS_CHECK, LIVE_CHECK]


def validate_snapshots(
    people: "pd.DataFrame",
    interactions: "pd.DataFrame",
    *,
    facts: Mapping[str, Facts],
    accepted: Mapping[str, Facts | None],
    as_of: datetime,
    config: SnapshotConfig,
    docs: "Path",
    people_file: "Path",
) -> dict[str, ValidationReport]:
    """Run the suites on both tables and return the report of each; `facts` and `accepted` are by table, too.

    Of the people only `user_id` is needed; the rows to check are read from `people_file`, where they stand in the same
    order.
    """
    from pipelines.ingest.snapshots import people_in_rows
    from pipelines.ingest.validation.frames import interactions_frame, people_frame, sampled, totals_frame
    from pipelines.ingest.validation.run import validate
    from pipelines.ingest.validation.suites import (
        interactions_suite,
        interactions_totals_suite,
        people_suite,
        people_totals_suite,
    )
    from pipelines.ingest.validation.words import in_words

    limit = config.validated_rows
    checked = people_in_rows(people_file, sampled(people, limit).index.to_numpy())
    reports = validate(
        {
            "people": (people_frame(checked, as_of, limit), people_suite(config)),
            "people_totals": (totals_frame(facts["people"]), people_totals_suite(config, accepted["people"])),
            "interactions": (interactions_frame(interactions, people, limit), interactions_suite(as_of)),
            "interactions_totals": (
                totals_frame(facts["interactions"]),
                interactions_totals_suite(config, accepted["interactions"]),
            ),
        },
        docs,
        {"people": ["user_id"], "interactions": ["actor_id", "target_id", "kind", "occurred_at"]},
    )
    return {
        table: in_words(
            table,
            reports.of(table, f"{table}_totals"),
            facts=facts[table],
            accepted=accepted[table],
            as_of=as_of,
            config=config,
        )
        for table in ("people", "interactions")
    }


def expectations_result(spec: dg.AssetCheckSpec, report: ValidationReport) -> dg.AssetCheckResult:
    """Show how the expectations went, the failed ones first."""
    ordered = sorted(report.outcomes, key=lambda outcome: outcome.passed)
    metadata: dict[str, dg.MetadataValue] = {
        "summary": dg.MetadataValue.text(report.sentence()),
        "expectations": table([asdict(outcome) for outcome in ordered]),
    }
    if report.failures:
        metadata["failed"] = table([asdict(outcome) for outcome in report.failures])
    if report.document is not None:
        metadata["data_docs"] = path(report.document)
        metadata["data_docs_url"] = dg.MetadataValue.url(report.document.as_uri())
    return dg.AssetCheckResult(
        check_name=spec.name,
        asset_key=spec.asset_key,
        passed=report.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=report.sentence()[:1000],
        metadata=metadata,
    )


def live_result(instant: RunInstant) -> dg.AssetCheckResult:
    """Warn when the clock of the run was set back to the end of old data."""
    told = "the data are live"
    if instant.is_historical:
        told = f"the newest interaction is from {instant.newest_at.isoformat()}: the run works as of that instant"
    return dg.AssetCheckResult(
        check_name=LIVE_CHECK.name,
        asset_key=LIVE_CHECK.asset_key,
        passed=not instant.is_historical,
        severity=dg.AssetCheckSeverity.WARN,
        description=told,
        metadata={
            "as_of": instant.at.isoformat(),
            "newest_at": instant.newest_at.isoformat(),
            "reason": instant.reason,
        },
    )
