"""The two consoles of the command line: answers go to standard output, everything else to standard error.

Progress, notes and errors never mix with an answer, so that `duet … --json | jq` works.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

# In a file or a pipe nothing ends at a screen's edge: an address that is cut in two cannot be copied.
WIDTH_OF_NO_SCREEN = 200
_WIDER_THAN_ANY_SCREEN = 10_000


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


class FittingTable(Table):
    """A table that becomes a list of `heading: value` lines where its columns would cut words in two."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table, or below its least width one block of lines for each row."""
        needed = Measurement.get(console, options.update(max_width=_WIDER_THAN_ANY_SCREEN), self).minimum
        if needed <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield Text.from_markup(str(self.title), style="bold")
        rows = zip(*(list(column.cells) for column in self.columns), strict=True)
        for number, row in enumerate(rows):
            block = Table.grid(padding=(0, 2, 0, 0))
            block.add_column(style="bold")
            block.add_column(overflow="fold")
            for column, value in zip(self.columns, row, strict=True):
                if value:
                    block.add_row(column.header, value)
            if number:
                yield Text("")
            yield block


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
    drawn = FittingTable(title=title, title_justify="left", title_style="bold", header_style="bold")
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
