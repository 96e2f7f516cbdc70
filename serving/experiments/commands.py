"""`duet experiment`: starts, changes, stops and shows the comparison of Staging with Production, at run time."""

import contextlib
import getpass
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.console import out, print_note, print_success, table
from infra.cli.context import current_settings
from infra.cli.groups import group
from infra.settings import Settings

if TYPE_CHECKING:
    import psycopg

    from infra.endpoints import Endpoints
    from registry.experiments.table import By

Name = Annotated[str, typer.Argument(help="Name of the experiment.", metavar="NAME")]
Reason = Annotated[str, typer.Option(help="Why; kept with who did it and when.")]


def register_experiment(app: typer.Typer) -> None:
    """Add the commands of this module to the group of experiments."""
    mine = group(app, "experiment")
    mine.command("start", epilog="Example: duet experiment start taste-v2 --share 0.1")(start)
    mine.command("set-share", epilog="Example: duet experiment set-share taste-v2 0.5")(set_share)
    mine.command("stop", epilog="Example: duet experiment stop taste-v2")(stop)
    mine.command("show", epilog="Example: duet experiment show")(show)


def start(
    ctx: typer.Context,
    name: Name,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of people who get the challenger.")] = 0.1,
    shadow: Annotated[bool, typer.Option("--shadow", help="Rank with the challenger and log it; show nobody.")] = False,
    reason: Reason = "",
) -> None:
    """Start an experiment: its share of people is answered by the release in Staging, within a second."""
    from registry.experiments.table import ExperimentState, start_experiment

    if not 1 <= len(name) <= 100:
        raise typer.BadParameter("a name has 1 to 100 characters")
    with _opened(current_settings(ctx)) as (endpoints, connection):
        start_experiment(
            connection,
            name,
            share=share,
            state=ExperimentState.SHADOW if shadow else ExperimentState.RUNNING,
            by=_me(reason),
        )
        warning = _nothing_to_compare(current_settings(ctx), endpoints)
    print_success(f"{name} ranks in the shadow" if shadow else f"{name} is running: {share:.1%} get the challenger")
    if warning is not None:
        print_note(warning)


def set_share(
    ctx: typer.Context,
    name: Name,
    share: Annotated[float, typer.Argument(min=0, max=1, help="The new share.")],
    reason: Reason = "",
) -> None:
    """Change the share of an experiment; nobody who has the challenger loses it when the share grows."""
    from registry.experiments import table as experiments

    with _opened(current_settings(ctx)) as (_, connection):
        experiments.set_share(connection, name, share, by=_me(reason))
    print_success(f"{share:.1%} get the challenger of {name}")


def stop(ctx: typer.Context, name: Name, reason: Reason = "") -> None:
    """Stop an experiment: everybody gets the release in Production, within a second."""
    from registry.experiments.table import stop_experiment

    with _opened(current_settings(ctx)) as (_, connection):
        stopped = stop_experiment(connection, name, by=_me(reason))
    print_success(f"{name} is off" if stopped else f"{name} was off already")


def show(ctx: typer.Context) -> None:
    """Show every experiment, the active one first, and what the guard last said."""
    from registry.experiments.table import last_verdicts, list_experiments

    with _opened(current_settings(ctx)) as (_, connection):
        found = list_experiments(connection)
        verdicts = last_verdicts(connection)
    rows = [
        (one.name, one.state, f"{one.challenger_share:.1%}", _when(one.started_at), _when(one.updated_at))
        for one in found
    ]
    out().print(table("experiments", ("name", "state", "share", "started", "changed"), rows, right=(2,)))
    for one in verdicts.values():
        said = f"guard, {_when(one.judged_at)}: {one.subject} {one.of}: {one.verdict}; {one.summary}"
        out().print(said, markup=False)


def _me(reason: str) -> "By":
    from registry.experiments.table import By

    return By(getpass.getuser(), reason=reason)


@contextlib.contextmanager
def _opened(settings: Settings) -> "Iterator[tuple[Endpoints, psycopg.Connection[Any]]]":
    from infra.db.postgres import connect
    from infra.endpoints import open_endpoints

    with (
        open_endpoints(settings) as endpoints,
        connect(endpoints.database_url, autocommit=True, application_name="duet-experiment") as connection,
    ):
        yield endpoints, connection


def _nothing_to_compare(settings: Settings, endpoints: "Endpoints") -> str | None:
    """Say why no challenger can answer now, or None; an experiment may be started before its release is there."""
    from infra.web.token import mlflow_token
    from registry.contracts import STAGING
    from registry.errors import RegistryError
    from registry.mlflow.aliases import registry_at

    url = endpoints.mlflow_url or settings.mlflow.url
    if url is None:
        return "No MLflow server is known here, so nobody checked that a release is in Staging."
    try:
        with registry_at(url, settings.mlflow, token=mlflow_token(settings)) as rest:
            if not rest.in_stage(STAGING):
                return (
                    "No release is in Staging, so everybody gets the champion: run `duet promote --staging` to have a "
                    "challenger."
                )
            rest.resolve_stage(STAGING)
    except RegistryError as error:
        return f"Everybody gets the champion until this is mended: {error}"
    return None


def _when(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"
