"""`duet up`, `down`, `status` and `restart`: the whole platform on one machine, seen from the command line."""

import json
import sys
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from infra.cli.console import err, one_line, out, print_note, print_success
from infra.cli.context import current_settings
from infra.settings import Settings
from infra.supervisor.errors import PlatformNotRunning
from infra.supervisor.state import Phase, PlatformState, ServicePhase, ServiceState

STATUS_GROUP: Final = "duet.status"
HEALTH_S: Final = 2.0
# The supervisor looks every five seconds; one that is silent for so long hangs, or is stopped.
SILENT_S: Final = 60.0
MARKS = {
    ServicePhase.WAITING: "·",
    ServicePhase.STARTING: "…",
    ServicePhase.HEALTHY: "[green]✓[/]",
    ServicePhase.DONE: "[green]✓[/]",
    ServicePhase.UNHEALTHY: "[yellow]![/]",
    ServicePhase.DIED: "[red]✗[/]",
    ServicePhase.STOPPED: "■",
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("up", epilog="Example: duet up --detach && duet status")(up)
    app.command("down", epilog="Example: duet --data-dir /srv/duet down")(down)
    app.command("restart", epilog="Example: duet restart serving")(restart)
    app.command("status", epilog="Example: curl $(duet status --json | jq -r .urls.serving)/health")(status)


def up(
    ctx: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is healthy.")] = False,
) -> None:
    """Start Postgres, Redis, MLflow, Dagster and the serving app, and wait until each is healthy.

    Ctrl-C stops all of them. A process that dies later, or hangs for a minute, is reported and started
    again, after a wait that grows from a second to a minute while it keeps failing.
    """
    from infra.logging import configure_logging
    from infra.supervisor.platform import run_platform, start_in_background

    settings = current_settings(ctx)
    if detach:
        state = start_in_background(settings, report=report)
        out().print(draw(state))
        print_links(settings, state)
        print_success("running in the background; `duet status` looks at it, `duet down` stops it")
        return

    def ready(state: PlatformState) -> None:
        out().print(draw(state))
        if sys.stdout.isatty():  # a log is no place for a token
            print_links(settings, state)
        print_success("running; Ctrl-C stops everything")

    configure_logging(settings)
    run_platform(settings, report=report, on_ready=ready)
    print_success("stopped")


def down(ctx: typer.Context) -> None:
    """Stop the platform of this data directory, and whatever a killed one left over."""
    from infra.supervisor.platform import stop_platform

    settings = current_settings(ctx)
    if stop_platform(settings):
        print_success(f"stopped everything on {settings.data_dir}")
    else:
        print_note(f"nothing runs on {settings.data_dir}")


def restart(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The process, as `duet status` names it.", show_default=False)],
) -> None:
    """End one process of the running platform, start it anew and wait until it is healthy."""
    from infra.supervisor.requests import restart as restart_process
    from infra.supervisor.state import running_state

    settings = current_settings(ctx)
    if running_state(settings.data_dir) is None:
        raise nothing_runs(settings)
    service = restart_process(settings.data_dir, name, report=report)
    print_success(f"{name} is healthy again{f' (pid {service.pid})' if service.pid else ''}")


def status(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")] = False,
) -> None:
    """Show each process with its health, address, pid and log, and what serves; exit code 1 unless all is healthy."""
    from infra.supervisor.state import read_state, running_state

    settings = current_settings(ctx)
    data_dir = settings.data_dir
    state = running_state(data_dir)
    serving = None if state is None else asked(settings, state.urls().get("serving"))
    notes = [] if state is None else noted(settings)
    silent_s = 0.0 if state is None or state.watched_at is None else time.time() - state.watched_at
    is_blind = silent_s > SILENT_S and state is not None and state.phase is not Phase.STARTING
    if is_blind:
        notes.insert(0, f"nobody has looked at these processes for {silent_s:.0f} s: {_unwatched(state)}")
    if as_json:
        typer.echo(json.dumps({**_as_json(state, str(data_dir.resolve())), "serving": serving, "notes": notes}))
    elif state is None:
        killed = read_state(data_dir)
        if killed is not None and killed.phase is not Phase.FAILED:
            raise PlatformNotRunning(f"the platform on {data_dir} was killed; clear up with `duet down`")
        raise nothing_runs(settings)
    else:
        out().print(draw(state))
        print_links(settings, state)
        for line in told(serving):
            out().print(line)
        for note in notes:
            out().print(f"[yellow]note[/] {escape(note)}")
    if state is None or state.phase is not Phase.RUNNING or is_blind:
        raise typer.Exit(1)


def nothing_runs(settings: Settings) -> PlatformNotRunning:
    """Return the error that says what to do where `duet up` runs nothing."""
    if settings.database_url is None:
        return PlatformNotRunning(f"no platform runs on {settings.data_dir}; start one with `duet up`")
    return PlatformNotRunning(
        f"no `duet up` runs on {settings.data_dir}; where the processes are containers, `docker compose` or `kubectl` "
        "shows and restarts them, and /health says what serves"
    )


def print_links(settings: Settings, state: PlatformState) -> None:
    """Print the links that let a browser into what asks for a token, each on a line of its own to be copied whole."""
    from infra.web.token import links

    for name, link in links(settings, state.urls()).items():
        typer.echo(f"{name} {link}")


def asked(settings: Settings, url: str | None) -> dict[str, Any] | None:
    """Return what the serving app at `url` says of its releases and of what ails it, None if it does not answer."""
    import httpx

    from infra.web.token import bearer, own_token

    if url is None:
        return None
    try:
        headers = bearer(own_token(settings))
        report = httpx.get(f"{url}/health", headers=headers, timeout=HEALTH_S, trust_env=False).json()
        return {name: report[name] for name in ("status", "reasons", "release", "experiment")}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def told(serving: Mapping[str, Any] | None) -> list[str]:
    """Say in lines what serves, what is refused and why."""
    if serving is None:
        return ["[yellow]serving[/] does not say what it serves"]
    release, experiment = serving["release"], serving["experiment"]
    lines = [f"[bold]serves[/] {escape(str(release.get('release') or 'no release'))}"]
    if release.get("pinned"):
        why = "see below" if release.get("pin_problem") else "MLflow was not told of the rollback yet"
        lines.append(f"[yellow]pinned[/] {escape(str(release['pinned']))}: {why}")
    if experiment.get("challenger"):
        lines.append(f"[bold]challenger[/] {escape(str(experiment['challenger']))}")
    if experiment.get("refused"):
        lines.append(f"[red]challenger refused[/] {escape(one_line(str(experiment['refused'])))}")
    return lines + [f"[red]{escape(serving['status'])}[/] {escape(one_line(str(why)))}" for why in serving["reasons"]]


def noted(settings: Settings) -> list[str]:
    """Return what the packages of ours have to say about what runs; infra imports none of them."""
    return [
        sentence
        for entry in sorted(entry_points(group=STATUS_GROUP), key=lambda entry: entry.name)
        for sentence in entry.load()(settings)
    ]


def report(service: ServiceState) -> None:
    """Print one line on standard error for a change of one process."""
    if service.phase is ServicePhase.WAITING:
        return
    is_ready = service.phase in {ServicePhase.HEALTHY, ServicePhase.DONE}
    took = f" after {service.ready_after_s:.1f} s" if is_ready and service.ready_after_s else ""
    detail = f": {escape(one_line(service.detail))}" if service.detail else ""
    err().print(f"{MARKS[service.phase]} {service.name} {service.phase.value}{took}{detail}")
    if service.phase is ServicePhase.DIED and service.log is not None:
        from infra.supervisor.processes import tail

        for line in tail(service.log).splitlines():
            err().print(f"  [dim]│ {escape(line)}[/]")


def draw(state: PlatformState) -> Group:
    """Draw the platform: one row per process, the reason of a bad one and the place of the logs below."""
    title = f"Duet on {escape(str(state.data_dir))}: {state.phase}"
    rows = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("", "what", "state", "pid"):
        rows.add_column(column, no_wrap=True)
    # Last, and never folded: an address that is cut in two cannot be copied.
    rows.add_column("address", no_wrap=True, overflow="ignore")
    troubles = []
    logs = {service.log.parent for service in state.services.values() if service.log is not None}
    for service in state.services.values():
        if service.phase is ServicePhase.DONE:
            continue  # a preparation step that went well is of no interest any more
        rows.add_row(
            MARKS[service.phase],
            service.name,
            service.phase.value,
            str(service.pid or ""),
            escape(service.url or ""),
        )
        if service.detail:
            troubles.append(f"[red]{service.name}[/] {escape(one_line(service.detail))}")
    places = [f"logs: {escape(str(folder))}/NAME.log" for folder in sorted(logs)]
    return Group(rows, *places, *troubles)


def _unwatched(state: PlatformState | None) -> str:
    pid = "" if state is None else f" (pid {state.pid})"
    return f"the supervisor{pid} is stopped or hangs; `duet down` and `duet up` start everything anew"


def _as_json(state: PlatformState | None, data_dir: str) -> dict[str, object]:
    if state is None:
        return {"phase": "stopped", "data_dir": data_dir, "pid": None, "urls": {}, "services": {}}
    return {**state.model_dump(mode="json"), "urls": state.urls()}
