"""The two consoles of the command line: answers go to standard output, everything else to standard error.

Progress, notes and errors never mix with an answer, so that `duet … --json | jq` works.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# In a file or a pipe nothing ends at a screen's edge: an address that is cut in two cannot be copied.
WIDTH_OF_NO_SCREEN = 200


def out() -> Console:
    """Return the console for answers, bound to the present standard output."""
    return _console(sys.stdout)


def err() -> Console:
    """Return the console for progress, notes and errors, bound to the present standard error."""
    return _console(sys.stderr)


def one_line(text: str) -> str:
    """Fold all white space of `text` into single spaces."""
    return " ".join(text.split())


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else WIDTH_OF_NO_SCREEN
    return Console(file=stream, width=width, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print `error: message` as exactly one line on standard error."""
    console = err()
    console.print(f"[bold red]error:[/] {escape(one_line(message))}", overflow="ignore", no_wrap=True, crop=False)


def print_note(message: str) -> None:
    """Print one plain line on standard error."""
    err().print(escape(one_line(message)), style="dim")


def print_success(message: str) -> None:
    """Print one line that says what was done, on standard output."""
    out().print(f"[green]✓[/] {escape(one_line(message))}")


def table(
    title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()
) -> Table:
    """Build a table of plain values.

    Args:
        title: printed above the table; None for none.
        columns: the headings.
        rows: one sequence of printable values per row, as long as `columns`; markup in them is shown, not obeyed.
        right: positions of the columns aligned to the right.
    """
    right_columns = set(right)
    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for position, column in enumerate(columns):
        drawn.add_column(escape(column), justify="right" if position in right_columns else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(str(value)) for value in row))
    return drawn


def progress() -> Progress:
    """Return a progress display on standard error; use it as a context and add tasks with a total."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err(),
        transient=False,
    )
