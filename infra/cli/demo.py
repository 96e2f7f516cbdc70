"""`duet demo`: the whole path in one command, on a data directory of its own."""

import typer


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
