"""The snapshots every run starts from: people and interactions as of one instant, validated before anybody reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.ingest.checks import (
    CHECK_SPECS,
    INTERACTIONS_CHECK,
    PEOPLE_CHECK,
    expectations_result,
    live_result,
    validate_snapshots,
)
from pipelines.ingest.config import SnapshotConfig
from pipelines.ingest.snapshots import (
    INTERACTIONS_FILE,
    PEOPLE_FILE,
    SnapshotFile,
    choose_instant,
    export_interactions,
    export_people,
    export_slots,
    parse_instant,
    read_interactions,
    read_people,
)
from pipelines.ingest.validation.frames import interaction_facts, people_facts
from pipelines.presentation import path, plots, table
from pipelines.resources import Platform
from pipelines.results.changes import look
from pipelines.results.store import ResultStore, StepResult, iso

if TYPE_CHECKING:
    import pandas as pd

PEOPLE = dg.AssetOut(
    dagster_type=dg.Any,
    group_name="ingest",
    kinds={"postgres", "parquet"},
    description="Everybody in `duet.users` with preferences, profile and attributes.",
)
INTERACTIONS = dg.AssetOut(
    dagster_type=dg.Any,
    group_name="ingest",
    kinds={"postgres", "parquet"},
    description="Every directed interaction up to the instant of the run, in order of time.",
)


class SnapshotStep(SnapshotConfig, dg.Config):
    """Say as of when people and interactions are photographed and what must hold for them."""


@dataclass(frozen=True)
class _Taken:
    """A snapshot that is on disk, but not yet accepted."""

    scratch: Path
    file: SnapshotFile
    facts: dict[str, Any]


@dg.multi_asset(
    name="snapshots",
    outs={"people": PEOPLE, "interactions": INTERACTIONS},
    internal_asset_deps={"people": set(), "interactions": {dg.AssetKey("people")}},
    check_specs=CHECK_SPECS,
    op_tags={"duet/stage": "ingest"},
)
def snapshots(
    context: dg.AssetExecutionContext, config: SnapshotStep, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Photograph people and interactions in one transaction, validate both, and accept them if everything holds."""
    from psycopg import IsolationLevel

    results = platform.results

    def progress(what: str, rows: int) -> None:
        context.log.info("%s: %d rows written", what, rows)

    with results.staging("people") as people_at, results.staging("interactions") as interactions_at:
        with platform.connection() as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            live_within = timedelta(days=config.live_within_days)
            instant = choose_instant(connection, config.as_of, platform.clock.now(), live_within)
            context.log.info("as of %s (%s)", instant.at.isoformat(), instant.reason)
            seen = look(connection).facts()
            export_slots(connection, people_at)
            people_file = export_people(connection, people_at, progress)
            interactions_file = export_interactions(connection, interactions_at, instant.at, progress)
        people = read_people(people_at / PEOPLE_FILE, ["user_id", "visible"])
        interactions = read_interactions(interactions_at / INTERACTIONS_FILE)
        taken_people = _Taken(people_at, people_file, people_facts(people))
        taken = _Taken(interactions_at, interactions_file, interaction_facts(interactions, instant.at))
        reports = validate_snapshots(
            people,
            interactions,
            facts={"people": taken_people.facts, "interactions": taken.facts},
            accepted={asset: _accepted(results, asset) for asset in ("people", "interactions")},
            as_of=instant.at,
            config=config,
            docs=platform.docs_directory(context.run.run_id),
            people_file=people_at / PEOPLE_FILE,
        )
        windows = _windows(interactions, config)
        made: dict[str, StepResult] = {}
        if all(report.passed for report in reports.values()):
            base = {"run_id": context.run.run_id, "as_of": instant.at, **{k: windows.get(k) for k in ("t0", "t1")}}
            if config.since:
                seen["since"] = iso(parse_instant(config.since))
            made = _accept(results, taken_people, taken, base, seen)
        figures = _figures(interactions)
    yield _materialised(
        made.get("people"),
        asset_key="people",
        metadata=_metadata(taken_people, made.get("people"), results) | {"as_of": instant.at.isoformat()},
        check_results=[expectations_result(PEOPLE_CHECK, reports["people"])],
    )
    yield _materialised(
        made.get("interactions"),
        asset_key="interactions",
        metadata=_metadata(taken, made.get("interactions"), results)
        | {"as_of": instant.at.isoformat(), "as_of_because": instant.reason, "since": config.since or "the beginning"}
        | {f"window_{name}": str(value) for name, value in windows.items()}
        | plots(figures),
        check_results=[expectations_result(INTERACTIONS_CHECK, reports["interactions"]), live_result(instant)],
    )


def _accepted(results: ResultStore, asset: str) -> dict[str, Any] | None:
    found = results.find(asset)  # no input: it is what this very asset made before
    return None if found is None else dict(found.facts)


def _accept(
    results: ResultStore, people: _Taken, interactions: _Taken, base: dict[str, Any], seen: dict[str, str | int]
) -> dict[str, StepResult]:
    """Move both files to their places and return both results; the interactions name the people they belong to."""
    made: dict[str, StepResult] = {}
    for asset, taken in (("people", people), ("interactions", interactions)):
        results.adopt(taken.scratch, asset, taken.file.digest)
        inputs = {name: each.digest for name, each in made.items()}
        made[asset] = StepResult(asset=asset, digest=taken.file.digest, inputs=inputs, facts=taken.facts | seen, **base)
    return made


def _materialised(made: StepResult | None, **told: Any) -> dg.MaterializeResult[Any]:
    """Return a materialisation, without a value where the snapshot was refused: so the last one stays."""
    return dg.MaterializeResult(**told) if made is None else dg.MaterializeResult(value=made, **told)


def _windows(interactions: "pd.DataFrame", config: SnapshotConfig) -> dict[str, Any]:
    """Return T0 and T1, or why the decisions cannot be split; steps that need the windows refuse by themselves."""
    from pipelines.evaluation.config import WindowConfig
    from pipelines.evaluation.errors import EmptyWindow
    from pipelines.evaluation.windows import split_windows

    if config.since:
        interactions = interactions[interactions["occurred_at"] >= parse_instant(config.since)]
    asked = WindowConfig(**{name: getattr(config, name) for name in WindowConfig.model_fields})
    try:
        windows = split_windows(interactions, asked)
    except EmptyWindow as refused:
        return {"refused": str(refused)}
    return {
        "t0": windows.t0.to_pydatetime(),
        "t1": windows.t1.to_pydatetime(),
        "decisions": windows.decisions,
    }


def _metadata(taken: _Taken, made: StepResult | None, results: ResultStore) -> dict[str, Any]:
    facts = [{"fact": name, "value": str(value)} for name, value in taken.facts.items()]
    return {
        "dagster/row_count": taken.file.rows,
        "digest": taken.file.digest,
        "facts": table(facts),
        "accepted": made is not None,
        "path": path(results.directory(made.asset, made.digest) if made else results.root),
    }


def _figures(interactions: "pd.DataFrame") -> dict[str, bytes]:
    from pipelines.ingest.plots import interaction_volume

    return {"interaction_volume": interaction_volume(interactions)}
