"""What a person sees beside a finished step in Dagster: tables, inline plots, links and digests."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

MAX_PLOT_BYTES = 100_000
MAX_ROWS = 200
SHOWN_DIGITS = 5


def plot(png: bytes, title: str) -> dg.MetadataValue:
    """Show a PNG inline; one above the bound is replaced by a note, because it would live in the event log."""
    if len(png) > MAX_PLOT_BYTES:
        return dg.MetadataValue.text(f"{title}: {len(png)} bytes, too large to show here; it is in MLflow")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def plots(figures: Mapping[str, bytes]) -> dict[str, dg.MetadataValue]:
    """Show several PNGs, one metadata entry each."""
    return {f"plot: {name.replace('_', ' ')}": plot(png, name) for name, png in figures.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue:
    """Show rows as a table; columns are those of the first row, values become numbers, yes/no or text."""
    shown = [dg.TableRecord({str(key): _cell(value) for key, value in row.items()}) for row in rows[:MAX_ROWS]]
    if not shown:
        return dg.MetadataValue.text("no rows")
    names = list(shown[0].data)
    schema = dg.TableSchema([dg.TableColumn(name, _type_of([row.data.get(name) for row in shown])) for name in names])
    return dg.MetadataValue.table(shown, schema=schema)


def frame(data: "pd.DataFrame") -> dg.MetadataValue:
    """Show a data frame as a table, its index as columns where it is named."""
    flat = data.reset_index() if any(name is not None for name in data.index.names) else data
    return table([{str(key): value for key, value in row.items()} for row in flat.to_dict("records")])


def markdown(data: "pd.DataFrame", digits: int = 4) -> dg.MetadataValue:
    """Show a data frame as a Markdown table."""
    header = [str(name) for name in data.columns]
    body = [
        [f"{v:.{digits}f}" if isinstance(v, float) else str(v) for v in row] for row in data.itertuples(index=False)
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *body)]
    return dg.MetadataValue.md("\n".join(lines))


def link(url: str) -> dg.MetadataValue:
    """Show a link."""
    return dg.MetadataValue.url(url)


def path(where: Path) -> dg.MetadataValue:
    """Show a place on disk."""
    return dg.MetadataValue.path(str(where))


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _readable(float(value)) if value == value else None  # noqa: PLR0124 - NaN is not JSON
    if hasattr(value, "item"):
        return _cell(value.item())
    return str(value)


def _readable(value: float) -> float:
    """Drop digits that nobody reads; all of them are in MLflow and in the files."""
    return float(f"{value:.{SHOWN_DIGITS}g}") if abs(value) < 10**SHOWN_DIGITS else value


def _type_of(values: Sequence[Any]) -> str:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return "bool"
    if present and all(isinstance(value, int) for value in present):
        return "int"
    if present and all(isinstance(value, (int, float)) for value in present):
        return "float"
    return "string"
