"""The commands that the pipelines add to `duet`: import."""

from __future__ import annotations

import typer

from pipelines.ingest.commands import register_import


def register(app: typer.Typer) -> None:
    """Add this package's commands to the `duet` command."""
    register_import(app)
