"""`duet backup` and `duet restore`: everything that cannot be made anew, as a folder."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.console import print_note, print_success
from infra.cli.context import current_settings


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("backup", epilog="Example: duet backup /backups/duet-2026-06-01")(backup)
    app.command("restore", epilog="Example: duet restore /backups/duet-2026-06-01")(restore)


def backup(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="New folder; it appears when the backup is whole.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")] = False,
) -> None:
    """Back up the database, MLflow's records and artefacts and the results of the pipelines, while everything runs.

    The folder can be read by this account only, and a manifest holds the digest of each file. Redis and the population
    files of serving are not in it: they are made from the rest. Copy it to another machine, with `erasures.jsonl`.
    """
    from infra.backup.taking import take_backup
    from infra.endpoints import open_endpoints

    settings = current_settings(ctx)
    with open_endpoints(settings) as endpoints:
        manifest = take_backup(settings, endpoints, folder, overwrite=overwrite)
    for what in manifest.elsewhere:
        print_note(f"not in it: {what}")
    size = sum(file.size for file in manifest.files.values()) / 2**20
    print_success(f"{len(manifest.files)} files, {size:.1f} MiB, as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC")


def restore(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder that `duet backup` made.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete what this installation holds.")] = False,
    erased: Annotated[
        list[Path] | None, typer.Option("--erased", help="A copy of `erasures.jsonl`; may be repeated.")
    ] = None,
) -> None:
    """Restore a backup onto an empty installation; nothing may be using the database meanwhile.

    Every file is held against its digest first. Then schemas and folders are put in place, the schema is migrated, and
    whoever was erased after the backup was taken is erased again.
    """
    from infra.backup.erased import NOBODY_FOUND
    from infra.backup.restoring import restore_backup
    from infra.endpoints import open_endpoints
    from infra.supervisor.state import refuse_running

    settings = current_settings(ctx)
    refuse_running(settings.data_dir)
    with open_endpoints(settings) as endpoints:
        restored = restore_backup(
            settings, endpoints, folder, actor=getpass.getuser(), overwrite=overwrite, journals=erased or []
        )
    if restored.erased_again:
        print_note(f"{restored.erased_again} people were erased after the backup, and are erased again")
    if restored.nobody_found:
        print_note(NOBODY_FOUND)
    print_success(f"restored as of {restored.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC")
    print_note("start it with `duet up`, then `duet train --job materialize_features` fills the online store")
