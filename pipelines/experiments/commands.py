"""`duet experiment report`: the read-out of an experiment on the command line."""

import json
from typing import Annotated

import typer

from infra.cli.console import out, table
from infra.cli.context import current_settings
from infra.cli.groups import group


def register_report(app: typer.Typer) -> None:
    """Add the command to the group of experiments."""
    group(app, "experiment").command("report", epilog="Example: duet experiment report taste-v2 --json")(report)


def report(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name of the experiment. Default: the active one, else the latest changed.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure and every look as JSON.")] = False,
) -> None:
    """Compare the arms of an experiment: rates with intervals, sample ratio, and what may be decided."""
    from infra.clock import SystemClock
    from infra.endpoints import open_endpoints
    from infra.postgres import connect
    from pipelines.experiments.readout import read_out
    from pipelines.experiments.tables import as_json as numbers
    from pipelines.experiments.tables import rows_of

    settings = current_settings(ctx)
    with (
        open_endpoints(settings) as endpoints,
        connect(endpoints.database_url, application_name="duet-experiment") as connection,
    ):
        found = read_out(connection, settings.experiments, SystemClock().now(), name)
    if as_json:
        typer.echo(json.dumps(numbers(found), indent=2))
        return
    rows = [[row[column] for column in row] for row in rows_of(found)]
    stretch = found.stretch
    ended = "running" if stretch.running else f"until {stretch.until:%Y-%m-%d %H:%M:%S}"
    title = f"{stretch.name}: {stretch.share:.1%} since {stretch.since:%Y-%m-%d %H:%M:%S}, {ended}"
    out().print(table(title, ["", *(arm.name for arm in found.arms)], rows, right=range(1, 4)))
    p = found.sample_ratio_p
    out().print(f"sample ratio: {'too few people to test' if p is None else f'p = {p:.3g}'}")
    out().print(found.sentence, markup=False)
