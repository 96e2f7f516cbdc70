"""The arithmetic of a load: percentiles, throughput, what is good, and when a service is itself again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.bench.errors import NothingMeasured

Numbers = Sequence[float] | npt.NDArray[np.float64]
WINDOW_S = 0.25


@dataclass(frozen=True)
class Durations:
    """How durations are spread, milliseconds; a percentile is a value that was seen, the higher of two neighbours."""

    n: int
    p50: float
    p95: float
    p99: float
    longest: float


def spread(milliseconds: Numbers) -> Durations:
    """Return the spread of durations; raises NothingMeasured without any."""
    values = np.asarray(milliseconds, dtype=np.float64)
    if not values.size:
        raise NothingMeasured("A load ended without a single answer: is the service up?")
    p50, p95, p99 = np.percentile(values, (50, 95, 99), method="higher")
    return Durations(int(values.size), *(round(float(value), 3) for value in (p50, p95, p99, values.max())))


def rate(n: int, seconds: float) -> float:
    """Return how many per second."""
    return round(n / seconds, 1) if seconds > 0 else 0.0


def goodput(latency_ms: Numbers, good: Sequence[bool], seconds: float, within_ms: float) -> float:
    """Return the good answers per second that came within a time."""
    fast = np.asarray(latency_ms, dtype=np.float64) <= within_ms
    return rate(int((fast & np.asarray(good, dtype=np.bool_)).sum()), seconds)


def recovery_s(due_s: Numbers, latency_ms: Numbers, good: Sequence[bool], since_s: float, calm_ms: float) -> float:
    """Return the seconds after `since_s` from which on every window is calm: all good, p99 within `calm_ms`.

    Windows are WINDOW_S long; infinity when the last one is not calm.
    """
    due = np.asarray(due_s, dtype=np.float64)
    after = due >= since_s
    window = ((due[after] - since_s) / WINDOW_S).astype(np.int64)
    slow = np.asarray(latency_ms, dtype=np.float64)[after]
    fine = np.asarray(good, dtype=np.bool_)[after]
    last_bad, last = -1, int(window.max(initial=-1))
    for number in range(last + 1):
        rows = window == number
        if rows.any() and (not fine[rows].all() or spread(slow[rows]).p99 > calm_ms):
            last_bad = number
    if last < 0 or last_bad == last:
        return float("inf")
    return round((last_bad + 1) * WINDOW_S, 3)


def exponent(smallest: tuple[int, float], largest: tuple[int, float]) -> float:
    """Return by which power of the size a cost grows: 0 is not at all, 1 is linearly."""
    (n, cost), (more, higher) = smallest, largest
    if more <= n or cost <= 0 or higher <= 0:
        return 0.0
    return round(float(np.log(higher / cost) / np.log(more / n)), 3)


def log_linear(n: int, cost: float, more: int) -> float:
    """Return what a cost at size n would be at size `more`, if it grew like n log n."""
    return cost * float(more * np.log(more)) / float(n * np.log(n))
