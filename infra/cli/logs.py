"""`duet logs`: what a process of the platform wrote."""

from typing import Annotated

import typer

from infra.cli.context import current_settings
from infra.data_folder import require_open_folder
from infra.supervisor.errors import NoSuchLog


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("logs", epilog="Example: duet logs mlflow -f")(logs)
    app.command("log-name", epilog="Example: duet log-name 42")(log_name)


def logs(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a process, as `duet status` lists it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=100_000, help="How many of the last lines.")] = 100,
) -> None:
    """Print the last lines of a log, and with -f what is written from then on."""
    from infra.supervisor.state import logs_dir
    from infra.supervisor.upkeep import followed, tail_lines

    settings = current_settings(ctx)
    require_open_folder(settings.data_dir)
    folder = logs_dir(settings.data_dir)
    known = sorted(path.stem for path in folder.glob("*.log"))
    if name not in known:
        there = f"there are {', '.join(known)}" if known else f"there is none in {folder}"
        raise NoSuchLog(f"no log is named `{name}`: {there}")
    path = folder / f"{name}.log"
    last, position = tail_lines(path, lines)
    for line in last:
        typer.echo(line)
    if follow:
        for text in followed(path, position):
            typer.echo(text, nl=False)


def log_name(ctx: typer.Context, user_id: Annotated[str, typer.Argument(help="Id of a person.")]) -> None:
    """Print the name that stands in serving's log, as `person`, in place of a person's id."""
    from infra.person_names import PersonNames

    settings = current_settings(ctx)
    require_open_folder(settings.data_dir)
    typer.echo(PersonNames.of(settings)(user_id))
