"""`duet keys`: make, list and revoke the API keys that the service asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.console import out, print_note, print_success, table
from infra.cli.context import current_settings
from infra.settings import Settings

if TYPE_CHECKING:
    import psycopg


class Means(StrEnum):
    """By what a key is named."""

    ID = "id"
    NAME = "name"


keys = typer.Typer(help="API keys of the serving app.", no_args_is_help=True)


@keys.command("create", epilog="Example: duet keys create website --requests-per-minute 6000")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Who uses the key, at most 100 characters.")],
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, max=100_000_000, help="Most calls a minute; default: the settings' limit.")
    ] = None,
    tester: Annotated[
        bool, typer.Option("--tester", help="Let calls with this key choose the arm of an experiment.")
    ] = False,
) -> None:
    """Make a key and print it: this once, because only a digest of it is kept."""
    from serving.access.store import create_key

    if not 1 <= len(name.strip()) <= 100:
        raise typer.BadParameter("a name has 1 to 100 characters")
    with _connected(current_settings(ctx)) as connection:
        key = create_key(connection, name.strip(), requests_per_minute=requests_per_minute, tester=tester)
    typer.echo(key)
    print_note("Keep it now: it cannot be shown again. Send it as `Authorization: Bearer …`.")


@keys.command("list", epilog="Example: duet keys list")
def list_(ctx: typer.Context) -> None:
    """List every key, without its secret."""
    from serving.access.store import list_keys

    with _connected(current_settings(ctx)) as connection:
        found = list_keys(connection)
    rows = [
        (
            key.key_id,
            key.name,
            key.requests_per_minute or "default",
            "yes" if key.tester else "no",
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "-",
        )
        for key in found
    ]
    out().print(table(None, ["id", "name", "calls a minute", "tester", "created", "revoked"], rows, right=(2,)))


@keys.command("revoke", epilog="Example: duet keys revoke website")
def revoke(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(help="Id or name of the key.")],
    by: Annotated[Means | None, typer.Option(help="Which of the two it is, where it is both.")] = None,
) -> None:
    """Revoke a key for good; every worker refuses it a few seconds later."""
    from serving.access.store import revoke_key

    settings = current_settings(ctx)
    with _connected(settings) as connection:
        revoke_key(connection, key, None if by is None else by.value)
    print_success(f"{key} is refused from now on, by every worker within {settings.serving.auth.refresh_s:g} s")


@contextmanager
def _connected(settings: Settings) -> Iterator["psycopg.Connection[Any]"]:
    from infra.db.postgres import connect
    from infra.endpoints import open_endpoints

    with open_endpoints(settings) as endpoints, connect(endpoints.database_url, autocommit=True) as connection:
        yield connection
