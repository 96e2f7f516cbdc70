"""The `duet import` commands: tables, speed-dating, synthetic.

Nothing heavy is imported here; each command loads what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli import console
from infra.cli.context import current_settings

if TYPE_CHECKING:
    import psycopg

    from infra.settings import Settings
    from pipelines.ingest.loading.report import Counts, ImportReport

QUARANTINED_EXIT = 3


class WorldKind(StrEnum):
    """The kinds of worlds of `pipelines.ingest.world.synthetic`, named here so that `--help` loads nothing heavy."""

    random_exposure = "random-exposure"
    self_selected = "self-selected"


_EXIT_CODES = (
    "Exit code: 0 when every row landed, 3 when some were quarantined (the good ones landed), "
    "1 when the import was refused and nothing was written."
)


def register_import(app: typer.Typer) -> None:
    """Add the group `import` to the `duet` command."""
    group = typer.Typer(help="Bring people and their interactions in.", no_args_is_help=True)
    group.command("tables", epilog=_EXIT_CODES)(tables)
    group.command("speed-dating", epilog=_EXIT_CODES)(speed_dating)
    group.command("synthetic", epilog=_EXIT_CODES)(synthetic)
    app.add_typer(group, name="import")


def tables(
    ctx: typer.Context,
    people: Annotated[Path | None, typer.Option(help="CSV or Parquet with one person per row.")] = None,
    interactions: Annotated[Path | None, typer.Option(help="CSV or Parquet with one interaction per row.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML that names your columns.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of CSV files, e.g. latin-1. Default: UTF-8, or UTF-16 by its mark.")
    ] = None,
) -> None:
    """Import people and interactions from CSV or Parquet; importing again changes nothing.

    A person needs `user_id`; other columns of the contract are `birth_date`, `gender`, `seeking`, `age_min`, `age_max`,
    `latitude`, `longitude`, `max_distance_km`, `interests`, `bio`, `created_at`, `last_active_at`, `visible`; any
    further column becomes an attribute. An interaction needs `actor`, `target`, `kind` (like, pass, superlike, message,
    block, report, unlike, unblock) and `time`; `event_id` is derived when absent.
    """
    from infra.clock import SystemClock
    from pipelines.ingest.columns.mapping_file import load_mapping
    from pipelines.ingest.tables import import_tables

    settings = current_settings(ctx)
    chosen = None if mapping is None else load_mapping(mapping)
    with _database(settings) as connection, _bars() as progress:
        report = import_tables(
            connection,
            people=people,
            interactions=interactions,
            mapping=chosen,
            encoding=encoding,
            data_dir=settings.data_dir,
            clock=SystemClock(),
            progress=progress,
        )
    _finish(report)


def speed_dating(ctx: typer.Context, file: Annotated[Path, typer.Argument(help="speed_dating.csv (latin-1).")]) -> None:
    """Import the Columbia speed-dating experiment: 551 people, 8,378 decisions.

    Ten of the decisions are about a person who has no row in the file; they are quarantined, so the exit code is 3.
    """
    from infra.clock import SystemClock
    from pipelines.ingest.speed_dating import import_speed_dating

    settings = current_settings(ctx)
    with _database(settings) as connection, _bars() as progress:
        report = import_speed_dating(
            connection, file, data_dir=settings.data_dir, clock=SystemClock(), progress=progress
        )
    _finish(report)


def synthetic(  # noqa: PLR0917 - Typer reads options from the signature
    ctx: typer.Context,
    people: Annotated[int, typer.Option(min=20, max=10_000_000, help="Number of people; ids are 1 to this.")] = 4_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same world.")] = 1,
    interactions_per_person: Annotated[
        float, typer.Option(min=0, max=2_000, help="About how many interactions on average.")
    ] = 50,
    days: Annotated[int, typer.Option(min=2, max=3_650, help="Length of the recorded window.")] = 120,
    until: Annotated[
        datetime | None, typer.Option(help="End of the window (UTC). Default: last midnight.", show_default=False)
    ] = None,
    world: Annotated[
        WorldKind,
        typer.Option(help="Who comes to look at whom: drawn for them, or chosen by themselves (with drifting tastes)."),
    ] = WorldKind.random_exposure,
) -> None:
    """Generate and import a world whose truth is known; the same world twice is a no-op."""
    from infra.clock import SystemClock
    from pipelines.ingest.world.world_import import import_synthetic

    settings = current_settings(ctx)
    with _database(settings) as connection, _bars() as progress:
        report = import_synthetic(
            connection,
            people=people,
            seed=seed,
            interactions_per_person=interactions_per_person,
            days=days,
            until=None if until is None else until.replace(tzinfo=until.tzinfo or UTC),
            world=world.value,
            data_dir=settings.data_dir,
            clock=SystemClock(),
            progress=progress,
        )
    _finish(report)


@contextmanager
def _database(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    from infra.data_folder import require_data_folder
    from infra.db.postgres import connect
    from infra.endpoints import open_endpoints
    from infra.time_zones import require_time_zones

    require_data_folder(settings.data_dir)
    require_time_zones()
    with open_endpoints(settings) as endpoints, connect(endpoints.database_url) as connection:
        yield connection


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    tasks: dict[str, TaskID] = {}
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console.err(),
    ) as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show


def _finish(report: ImportReport) -> None:
    """Print the summary and end with the exit code that fits it."""
    rows = [_row(name, counts) for name, counts in (("people", report.people), ("interactions", report.interactions))]
    columns = ("rows of", "read", "landed new", "updated", "unchanged", "quarantined")
    console.out().print(console.table(f"import {report.import_id}", columns, rows, right=range(1, 6)))
    reasons = [
        (name, reason, f"{n_rows:,}")
        for name, counts in (("people", report.people), ("interactions", report.interactions))
        for reason, n_rows in counts.quarantined.most_common()
    ]
    if reasons:
        console.out().print(console.table("quarantined", ("rows of", "reason", "rows"), reasons, right=[2]))
    for note in report.notes:
        console.print_note(note)
    if report.quarantine_file is not None:
        console.print_note(f"Lines, reasons and rows: {report.quarantine_file}")
        raise typer.Exit(QUARANTINED_EXIT)


def _row(name: str, counts: Counts) -> tuple[str, ...]:
    numbers = (counts.read, counts.new, counts.updated, counts.unchanged, counts.n_quarantined)
    return (name, *(f"{number:,}" for number in numbers))
