"""The root of the `duet` command: global options, discovery of commands, and the one place that ends a call.

Every failure ends as one line on standard error: exit code 1 for a failed command, 2 for wrong usage.
A traceback is shown only with `--debug`. A package whose commands cannot be loaded is reported, never fatal.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.exceptions import TyperException

from infra.cli import backup, capacity, db_roles, demo, doctor, env, logs, migrate, platform
from infra.cli.console import err, one_line, print_error, print_note
from infra.cli.context import Invocation, current_invocation
from infra.cli.endings import end_in_order
from infra.errors import DuetError
from infra.files import PRIVATE

COMMANDS_GROUP = "duet.commands"

HELP = """Duet recommends people to people: who should be shown to whom, so that both sides say yes.

Start with `duet doctor`, then `duet up`."""

EPILOG = """[bold]A first evening[/]

duet up --detach                         start everything and come back\n
duet import synthetic --people 4000      bring people in (or: tables, speed-dating)\n
duet train                               features, embeddings, index, ranker, evaluation\n
duet promote                             put the newest release candidate into Production\n
duet recommend 42                        ask the serving app\n
duet down                                stop everything

Settings come from DUET_… variables and .env; `duet doctor` says what is wrong and what to do."""


def build_app(entries: Sequence[EntryPoint] | None = None) -> typer.Typer:
    """Build the command tree.

    Args:
        entries: the entry points to load; None takes all installed ones of the group `duet.commands`.
    """
    app = typer.Typer(
        name="duet",
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        cls=TyperGroup,
    )
    app.callback()(_global_options)
    for module in (platform, logs, doctor, capacity, env, migrate, db_roles, backup, demo):
        module.register(app)
    found = list(entry_points(group=COMMANDS_GROUP)) if entries is None else entries
    for entry in sorted(found, key=lambda e: e.name):
        _load(app, entry)
    return app


def run(arguments: Sequence[str] | None = None, *, entries: Sequence[EntryPoint] | None = None) -> int:
    """Run one `duet` call in this process and return its exit code; nothing is raised.

    Args:
        arguments: the words after `duet`; None takes those of this process.
        entries: as in `build_app`.
    """
    invocation = Invocation()
    try:
        command = typer.main.get_command(build_app(entries))
        words = global_options_first(sys.argv[1:] if arguments is None else arguments)
        code = command.main(args=words, prog_name="duet", standalone_mode=False, obj=invocation)
    except TyperException as refused:
        return _usage_error(refused)
    except typer.Abort:
        print_note("aborted")
        return 130
    except KeyboardInterrupt:
        return 130
    except DuetError as failure:
        return _failed(str(failure), invocation)
    except Exception as surprise:  # noqa: BLE001 - the last resort: a person gets one line, --debug shows the rest
        reason = f"{type(surprise).__name__}: {surprise}" if str(surprise) else type(surprise).__name__
        return _failed(f"unexpected {one_line(reason)}; run again with `duet --debug …` to see where", invocation)
    return code if isinstance(code, int) else 0


def global_options_first(words: Sequence[str]) -> list[str]:
    """Return the words with `--data-dir` and `--debug` in front, where the root of the command reads them.

    People write them behind the command as well. Nothing behind `--` is moved, nor is a last `--data-dir` without
    its value.
    """
    end = list(words).index("--") if "--" in words else len(words)
    first: list[str] = []
    rest: list[str] = []
    at = 0
    while at < end:
        width = 2 if words[at] == "--data-dir" and at + 1 < end else 1
        is_global = width == 2 or words[at] == "--debug" or words[at].startswith("--data-dir=")
        (first if is_global else rest).extend(words[at : at + width])
        at += width
    return [*first, *rest, *words[end:]]


def main() -> None:
    """Run the `duet` command of this process."""
    os.umask(PRIVATE)  # what we and our children write is this account's only, from the first byte
    end_in_order()
    sys.exit(run())


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer passes the value of the switch
    if asked:
        typer.echo(f"duet {version('duet')}")
        raise typer.Exit


def _global_options(
    ctx: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where everything is kept; before or behind the command. Default: DUET_DATA_DIR, or .duet here.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a failure; before or behind the command.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    invocation = current_invocation(ctx)
    invocation.data_dir = data_dir
    invocation.debug = debug


def _load(app: typer.Typer, entry: EntryPoint) -> None:
    try:
        entry.load()(app)
    except Exception as broken:  # noqa: BLE001 - one broken package must not take `duet doctor` away
        reason = one_line(f"{type(broken).__name__}: {broken}")
        err().print(f"[yellow]warning:[/] {escape(f'the commands of `{entry.name}` are not available: {reason}')}")


def _usage_error(refused: TyperException) -> int:
    context = getattr(refused, "ctx", None)
    where = f" (see `{context.command_path} --help`)" if context is not None else ""
    message = refused.format_message()
    if message:  # a bare `duet` prints its help and comes here without a message
        print_error(f"{message.rstrip('.')}{where}")
    return refused.exit_code


def _failed(message: str, invocation: Invocation) -> int:
    if invocation.debug:
        traceback.print_exc()
    print_error(message)
    return 1
