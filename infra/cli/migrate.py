"""`duet migrate`: bring the database schema to the version that this code needs."""

from typing import Annotated

import typer

from infra.cli.console import print_success
from infra.cli.context import current_settings


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("migrate", epilog="Example: duet migrate")(migrate)


def migrate(
    ctx: typer.Context,
    down_to: Annotated[
        str | None, typer.Option(help="Go back to this revision; `base` drops every table with its rows.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before going back.")] = False,
) -> None:
    """Migrate the database forward to the newest version, or back with `--down-to`.

    Every other command does the former by itself; this one is for a deployment that wants it as a step of its own.
    """
    from infra.db.migrate import downgrade, upgrade
    from infra.endpoints import open_endpoints

    with open_endpoints(current_settings(ctx)) as endpoints:
        if down_to is None:
            upgrade(endpoints.database_url)
            print_success("the database is at the newest version")
            return
        if not yes:
            typer.confirm(f"Going back to `{down_to}` can delete rows for good. Go on?", abort=True)
        downgrade(endpoints.database_url, down_to)
        print_success(f"the database is at `{down_to}`; the next command brings it forward again")
