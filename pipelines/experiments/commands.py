"""`duet experiment report`, `interleave` and `simulate`: the read-out, two releases offline, and wrong decisions."""

import json
from datetime import datetime
from typing import Annotated

import typer

from infra.cli.console import out, print_note, progress, table
from infra.cli.context import current_settings
from infra.cli.groups import group
from infra.clock import in_utc


def register_report(app: typer.Typer) -> None:
    """Add the commands to the group of experiments."""
    group(app, "experiment").command("report", epilog="Example: duet experiment report taste-v2 --json")(report)
    interleaving = "Example: duet experiment interleave e1-i1-r1 e2-i2-r2"
    group(app, "experiment").command("interleave", epilog=interleaving)(interleave)
    group(app, "experiment").command("simulate", epilog="Example: duet experiment simulate --worlds 400")(simulate)


def report(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name of the experiment. Default: the active one, else the latest changed.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure and every look as JSON.")] = False,
) -> None:
    """Compare the arms of an experiment: rates with intervals, sample ratio, and what may be decided."""
    from infra.clock import SystemClock
    from infra.db.postgres import connect
    from infra.endpoints import open_endpoints
    from pipelines.experiments.readout import read_out
    from pipelines.experiments.tables import as_json as numbers
    from pipelines.experiments.tables import rows_of, shadow_rows

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
    if found.counterfactual is not None:
        would = shadow_rows(found.counterfactual)
        title = f"what the shadow would have reached, by {found.counterfactual.showings:,} showings at explored places"
        out().print(table(title, ["", *list(would[0])[1:]], [list(row.values()) for row in would], right=range(1, 6)))
    p = found.sample_ratio_p
    out().print(f"sample ratio: {'too few people to test' if p is None else f'p = {p:.3g}'}")
    out().print(found.sentence, markup=False)


def interleave(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(help="Release id such as `e1-i1-r1`.")],
    second: Annotated[str, typer.Argument(help="The release to compare it with.")],
    after: Annotated[
        datetime | None,
        typer.Option(
            help="Count likes after this instant, UTC unless it has a zone. Default: since both have learned."
        ),
    ] = None,
) -> None:
    """Compare two releases offline by team-draft interleaving, on the likes since both have learned."""
    from pipelines.release.interleaving import interleave_releases, learned_until
    from pipelines.release.judging import loaded
    from pipelines.runs.opening import opened_platform
    from registry.contracts import ReleaseVersions

    settings = current_settings(ctx)
    with opened_platform(settings) as platform:
        one, other = (loaded(platform, ReleaseVersions.parse(name)) for name in (first, second))
        snapshot = platform.snapshot(platform.results.require("interactions"))
        known = max(learned_until(one), learned_until(other))
        since = known if after is None else in_utc(after)
        found = interleave_releases(one, other, snapshot, settings, since)
    if since < known:
        print_note(f"likes up to {known:%Y-%m-%d %H:%M:%S} were learned by one of the two, which favours it")
    out().print(f"{found.requesters} people who liked somebody after {found.after:%Y-%m-%d %H:%M:%S}")
    out().print(found.sentence, markup=False)


def simulate(
    worlds: Annotated[int, typer.Option(min=10, max=10_000, help="Experiments per case.")] = 100,
    *,
    worst: Annotated[bool, typer.Option("--worst", help="Only the three cases that are hardest to judge.")] = False,
) -> None:
    """Show how often experiments without any difference are decided, by size, share, rate and clustering."""
    from pipelines.experiments.simulation import GRID, JUDGES, WORST, row_of, simulate_grid

    rows, cases = [], WORST if worst else GRID
    with progress() as bars:
        task = bars.add_task("cases", total=len(cases))
        for outcome in simulate_grid(worlds, cases):
            rows.append(row_of(outcome))
            bars.advance(task)
    columns = ["people", "share", "rate", "spread", *JUDGES]
    out().print(table(f"decided wrongly, of {worlds} experiments without a difference", columns, rows, right=range(8)))
