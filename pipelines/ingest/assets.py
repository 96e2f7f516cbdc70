"""The snapshots every run starts from: people and interactions as of one instant, validated before anybody reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.changes import look
from pipelines.ingest.checks import (
    CHECK_SPECS,
    INTERACTIONS_CHECK,
    PEOPLE_CHECK,
    expectations_result,
    live_result,
    validate_snapshots,
)
from pipelines.ingest.config import SnapshotConfig
from pipelines.launchpad import configured_by, read_config
from pipelines.presentation import path, plots, table
from pipelines.resources import Platform
from pipelines.snapshots import (
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
from pipelines.state import Current, PipelineState, iso
from pipelines.validation.frames import interaction_facts, people_facts

if TYPE_CHECKING:
    import pandas as pd

PEOPLE = dg.AssetSpec(
    "people",
    group_name="ingest",
    kinds={"postgres", "parquet"},
    description="Everybody in `duet.users` with preferences, profile and attributes.",
)
INTERACTIONS = dg.AssetSpec(
    "interactions",
    deps=["people"],
    group_name="ingest",
    kinds={"postgres", "parquet"},
    description="Every directed interaction up to the instant of the run, in order of time.",
)


@dataclass(frozen=True)
class _Taken:
    """A snapshot that is on disk, but not yet accepted."""

    scratch: Path
    file: SnapshotFile
    facts: dict[str, Any]


@dg.multi_asset(
    name="snapshots",
    specs=[PEOPLE, INTERACTIONS],
    check_specs=CHECK_SPECS,
    op_tags={"duet/stage": "ingest"},
)
def snapshots(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Photograph people and interactions in one transaction, validate both, and accept them if everything holds."""
    from psycopg import IsolationLevel

    config = read_config(context, SnapshotConfig)
    state = platform.state

    def progress(what: str, rows: int) -> None:
        context.log.info("%s: %d rows written", what, rows)

    with state.staging("people") as people_at, state.staging("interactions") as interactions_at:
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
            accepted={asset: _accepted(state, asset) for asset in ("people", "interactions")},
            as_of=instant.at,
            config=config,
            docs=platform.docs_directory(context.run.run_id),
            people_file=people_at / PEOPLE_FILE,
        )
        windows = _windows(interactions, config)
        pointers: list[Current | None] = [None, None]
        if all(report.passed for report in reports.values()):
            base = {"run_id": context.run.run_id, "as_of": instant.at, **{k: windows.get(k) for k in ("t0", "t1")}}
            if config.since:
                seen["since"] = iso(parse_instant(config.since))
            pointers = _accept(state, taken_people, taken, base, seen)
        figures = _figures(interactions)
    yield dg.MaterializeResult(
        asset_key="people",
        metadata=_metadata(taken_people, pointers[0], state) | {"as_of": instant.at.isoformat()},
        check_results=[expectations_result(PEOPLE_CHECK, reports["people"])],
    )
    yield dg.MaterializeResult(
        asset_key="interactions",
        metadata=_metadata(taken, pointers[1], state)
        | {"as_of": instant.at.isoformat(), "as_of_because": instant.reason, "since": config.since or "the beginning"}
        | {f"window_{name}": str(value) for name, value in windows.items()}
        | plots(figures),
        check_results=[expectations_result(INTERACTIONS_CHECK, reports["interactions"]), live_result(instant)],
    )


configured_by(snapshots, SnapshotConfig)


def _accepted(state: PipelineState, asset: str) -> dict[str, Any] | None:
    found = state.find(asset)
    return None if found is None else dict(found.facts)


def _accept(
    state: PipelineState, people: _Taken, interactions: _Taken, base: dict[str, Any], seen: dict[str, str | int]
) -> list[Current | None]:
    """Move both files to their places, then turn both pointers; the interactions name the people they belong to."""
    pointers: list[Current | None] = []
    inputs: dict[str, str] = {}
    for asset, taken in (("people", people), ("interactions", interactions)):
        place = state.adopt(taken.scratch, asset, taken.file.digest)
        pointers.append(
            Current(
                asset=asset, path=place, digest=taken.file.digest, inputs=dict(inputs), facts=taken.facts | seen, **base
            )
        )  # fmt: skip
        inputs["people"] = people.file.digest
    for pointer in pointers:
        if pointer is not None:
            state.publish(pointer)
    return pointers


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


def _metadata(taken: _Taken, pointer: Current | None, state: PipelineState) -> dict[str, Any]:
    facts = [{"fact": name, "value": str(value)} for name, value in taken.facts.items()]
    return {
        "dagster/row_count": taken.file.rows,
        "digest": taken.file.digest,
        "facts": table(facts),
        "accepted": pointer is not None,
        "path": path(pointer.path if pointer else state.root),
    }


def _figures(interactions: "pd.DataFrame") -> dict[str, bytes]:
    from pipelines.ingest.plots import interaction_volume

    return {"interaction_volume": interaction_volume(interactions)}
