"""The `duet` command: one root, to which every package adds its own commands.

A package contributes through the entry point group `duet.commands`: a function `register(app: typer.Typer) -> None`.
Commands take `ctx: typer.Context` and ask `current_settings(ctx)`; they print with `infra.cli.console`.
"""

from infra.cli.app import build_app, main, run
from infra.cli.context import current_settings

__all__ = ["build_app", "current_settings", "main", "run"]
