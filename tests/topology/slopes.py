"""Whether something grows without end: the slope of each series of a soak, its bound, and the tables of both."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression

BOUNDS = {
    "memory, MB": 20.0,
    "descriptors": 5.0,
    "threads": 5.0,
    "processes": 5.0,
    "connections": 5.0,
    "disk, MB": 200.0,
}
"""What each may grow by in an hour.

The smallest container with Python in it may have 1 GB and begins with 0.5: at 20 MB an hour it lives for a day. Limits
of descriptors and of connections are a thousand and two hundred: at 5 an hour nothing is reached in a day. A disk is
what people write to: 200 MB an hour fills 5 GB in a day, and rows that are kept are meant to.
"""
OF_PROCESSES = ("processes", "memory, MB", "descriptors", "threads")

Figures = Mapping[str, Mapping[str, float]]
"""What was found at one moment: by whose it is, and by measure."""


@dataclass(frozen=True)
class Trend:
    """How one measure went: its first and its last value, and its slope an hour once it was warm."""

    whose: str
    measure: str
    first: float
    last: float
    slope: float

    @property
    def is_beyond(self) -> bool:
        """Tell whether it grows faster than it may."""
        return self.slope > BOUNDS[self.measure]

    def sentence(self) -> str:
        """Say by how much it grows, and by how much it may."""
        return f"{self.whose}: {self.measure} grows by {self.slope:.1f} an hour; {BOUNDS[self.measure]:g} are allowed"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the line of least squares through (seconds, value) rises in an hour; 0 of a single moment."""
    times = [at for at, _ in points]
    if len(set(times)) < 2:
        return 0.0
    return 3600 * linear_regression(times, [value for _, value in points]).slope


def trends(samples: Sequence[tuple[float, Figures]]) -> list[Trend]:
    """Return the trend of every series in samples of (seconds, figures); slopes are those of the second half.

    What has ended before the last sample is left out, because it grows no more, and so is what there never was.
    """
    if not samples:
        return []
    half_s = (samples[0][0] + samples[-1][0]) / 2
    found = []
    for whose, measures in samples[-1][1].items():
        for measure in measures:
            series = [(at, of[whose][measure]) for at, of in samples if measure in of.get(whose, {})]
            if not any(value for _, value in series):
                continue
            warm = [(at, value) for at, value in series if at >= half_s]
            found.append(Trend(whose, measure, series[0][1], series[-1][1], slope(warm)))
    return found


def tables(found: Sequence[Trend], answers: Mapping[tuple[str, str], int]) -> str:
    """Return three tables in Markdown: of processes, of everything else, and of answers by call and status."""
    by = {(trend.whose, trend.measure): trend for trend in found}
    owners = list(dict.fromkeys(trend.whose for trend in found if trend.measure in OF_PROCESSES))
    cells = {whose: [_cell(by.get((whose, measure))) for measure in OF_PROCESSES] for whose in owners}
    others = [trend for trend in found if trend.measure not in OF_PROCESSES]
    lines = [
        f"| process | {' | '.join(OF_PROCESSES)} |",
        f"|---{'|---' * len(OF_PROCESSES)}|",
        *(f"| {whose} | {' | '.join(of)} |" for whose, of in cells.items()),
        "",
        "| what | first, last, slope an hour |",
        "|---|---|",
        *(f"| {trend.whose}: {trend.measure} | {_cell(trend)} |" for trend in others),
        "",
        "| call | answers by status |",
        "|---|---|",
    ]
    calls: dict[str, Counter[str]] = {}
    for (call, status), count in sorted(answers.items()):
        calls.setdefault(call, Counter())[status] += count
    for call, statuses in calls.items():
        lines.append(f"| {call} | {', '.join(f'{status}: {count:,}' for status, count in statuses.items())} |")
    return "\n".join(lines)


def _cell(trend: Trend | None) -> str:
    if trend is None:
        return ""
    mark = " **too much**" if trend.is_beyond else ""
    return f"{trend.first:.0f}, {trend.last:.0f}, {trend.slope:+.1f}{mark}"


def failed(answers: Mapping[tuple[str, str], int]) -> list[str]:
    """Return in words which answers were an error of the platform, or none at all."""
    bad = ((call, status, count) for (call, status), count in answers.items() if status[:1] in {"0", "5"})
    return [f"{call}: {count} times {status}" for call, status, count in sorted(bad)]
