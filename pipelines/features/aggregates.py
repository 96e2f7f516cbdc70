"""Activity and reciprocity of people as of a sequence of instants, from the interactions alone.

A snapshot at an instant counts only what happened strictly before it, so the row stamped with that instant never
knows the event that happened at it. Every event enters and leaves each rolling total once, whatever the number of
snapshots; only people whose vector changed since the previous snapshot get a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.layout import ACTIVITY, RECIPROCITY, Layout
from feature_repo.transforms.pairs import Intervals
from feature_repo.transforms.rates import smoothed_rate
from pipelines.features.errors import FeatureSnapshotError, NoSnapshots
from pipelines.features.events import MESSAGE, Events

DAY_US = 86_400 * 1_000_000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureSnapshot:
    """People whose vectors changed: ids int64[n] ascending, vectors float32[n, width of the layout]."""

    at: pd.Timestamp
    user_ids: npt.NDArray[np.int64]
    activity: Floats
    reciprocity: Floats


def snapshot_instants(
    start: pd.Timestamp, end: pd.Timestamp, interval_s: float, max_snapshots: int
) -> list[pd.Timestamp]:
    """Return ascending instants from just after the start to the end, both included; the interval widens to the bound.

    Raises:
        NoSnapshots: the end is not after the start.

    """
    span_s = (end - start).total_seconds()
    if span_s < 0:
        raise NoSnapshots(f"There is nothing to snapshot between {start} and {end}: the end comes first.")
    step_s = max(interval_s, span_s / max_snapshots)
    steps = int(np.floor(span_s / step_s + 1e-9))
    ages = range(min(steps, max_snapshots - 1), -1, -1)
    # Postgres keeps microseconds: an instant between two of them would be found again under another name.
    return [end - pd.Timedelta(microseconds=round(step_s * step * 1e6)) for step in ages]


def snapshots(events: Events, instants: Sequence[pd.Timestamp]) -> Iterator[FeatureSnapshot]:
    """Yield a snapshot per instant, in ascending order; memory is a few vectors per person."""
    totals = _Totals(events)
    previous_activity = ACTIVITY.default_rows(events.n_people)
    previous_reciprocity = RECIPROCITY.default_rows(events.n_people)
    for at in sorted(instants):
        columns = totals.as_of(int(at.value) // 1_000)
        activity, reciprocity = _stacked(ACTIVITY, columns), _stacked(RECIPROCITY, columns)
        changed = _differs(activity, previous_activity) | _differs(reciprocity, previous_reciprocity)
        rows = np.flatnonzero(changed)
        yield FeatureSnapshot(at, events.user_ids[rows], activity[rows], reciprocity[rows])
        previous_activity, previous_reciprocity = activity, reciprocity


def vectors_at(events: Events, at: pd.Timestamp) -> tuple[Floats, Floats]:
    """Return everybody's activity and reciprocity as of one instant, float32[n, width] each."""
    columns = _Totals(events).as_of(int(at.value) // 1_000)
    return _stacked(ACTIVITY, columns), _stacked(RECIPROCITY, columns)


class _Stream:
    """One kind of happening: who it counts for and when, ascending, with rolling totals per person."""

    def __init__(self, person: npt.NDArray[np.int32], at_us: npt.NDArray[np.int64], n_people: int) -> None:
        self._person, self._at_us = person, at_us
        self._total = np.zeros(n_people, dtype=np.int32)
        self._entered = 0
        self._windows: dict[int, tuple[npt.NDArray[np.int32], int, int]] = {}

    def before(self, at_us: int) -> npt.NDArray[np.int32]:
        """Count everything before the instant, int32[n]; instants must come in ascending order."""
        upto = int(np.searchsorted(self._at_us, at_us, side="left"))
        self._total += self._count(self._entered, upto)
        self._entered = upto
        return self._total

    def within(self, days: int, at_us: int) -> npt.NDArray[np.int32]:
        """Count what happened in the last days before the instant, int32[n]; instants must ascend."""
        empty = np.zeros(self._total.size, dtype=np.int32)
        count, start, end = self._windows.get(days, (empty, 0, 0))
        first = int(np.searchsorted(self._at_us, at_us - days * DAY_US, side="left"))
        last = int(np.searchsorted(self._at_us, at_us, side="left"))
        disjoint = first >= end  # nothing of the earlier window is left
        count = self._count(first, last) if disjoint else count + self._count(end, last) - self._count(start, first)
        self._windows[days] = (count, first, last)
        return count

    def _count(self, first: int, last: int) -> npt.NDArray[np.int32]:
        return np.bincount(self._person[first:last], minlength=self._total.size).astype(np.int32)


class _Standing:
    """What holds of pairs for a while: how many intervals hold for each person that began in the last days."""

    def __init__(self, intervals: Intervals, n_people: int, days: int | None = None) -> None:
        began, ended = intervals.began_us, intervals.ended_us
        if days is not None:
            ended = np.minimum(ended, began + days * DAY_US)
        at_us = np.concatenate([began, began, ended, ended])
        person = np.concatenate([intervals.actor, intervals.target] * 2)
        step = np.repeat([1, -1], 2 * began.size)
        order = np.argsort(at_us, kind="stable")
        self._person, self._at_us, self._step = person[order], at_us[order], step[order]
        self._total = np.zeros(n_people, dtype=np.int32)
        self._entered = 0

    def before(self, at_us: int) -> npt.NDArray[np.int32]:
        """Count what held just before the instant, int32[n]; instants must come in ascending order."""
        upto = int(np.searchsorted(self._at_us, at_us, side="left"))
        part = slice(self._entered, upto)
        change = np.bincount(self._person[part], weights=self._step[part], minlength=self._total.size)
        self._total = self._total + change.astype(np.int32)
        self._entered = upto
        return self._total


class _Totals:
    """The rolling totals behind every column of the two layouts."""

    def __init__(self, events: Events) -> None:
        like, message = events.is_like, events.kind == MESSAGE
        passed = events.is_decision & ~like
        n = events.n_people
        self._likes_sent = _Stream(events.actor[like], events.at_us[like], n)
        self._likes_received = _Stream(events.target[like], events.at_us[like], n)
        self._passes_sent = _Stream(events.actor[passed], events.at_us[passed], n)
        self._passes_received = _Stream(events.target[passed], events.at_us[passed], n)
        self._messages_sent = _Stream(events.actor[message], events.at_us[message], n)
        self._messages_received = _Stream(events.target[message], events.at_us[message], n)
        self._matches, self._matches_7d, self._matches_30d = (
            _Standing(events.matches, n, days) for days in (None, 7, 30)
        )
        self._events, self._seen = events, 0
        self._last_active_us = np.full(n, np.iinfo(np.int64).min)

    def as_of(self, at_us: int) -> dict[str, npt.NDArray[np.generic]]:
        """Return each column as of an instant, [n]; instants must come in ascending order."""
        sent, received = self._likes_sent.before(at_us), self._likes_received.before(at_us)
        decisions_sent = sent + self._passes_sent.before(at_us)
        decisions_received = received + self._passes_received.before(at_us)
        matched = self._matches.before(at_us)
        return {
            "likes_sent_7d": self._likes_sent.within(7, at_us),
            "likes_sent_30d": self._likes_sent.within(30, at_us),
            "passes_sent_30d": self._passes_sent.within(30, at_us),
            "likes_received_7d": self._likes_received.within(7, at_us),
            "likes_received_30d": self._likes_received.within(30, at_us),
            "passes_received_30d": self._passes_received.within(30, at_us),
            "decisions_sent": decisions_sent,
            "decisions_received": decisions_received,
            "like_rate_given": smoothed_rate(sent, decisions_sent),
            "like_rate_received": smoothed_rate(received, decisions_received),
            "last_active_day": self._last_active_day(at_us),
            "matches_7d": self._matches_7d.before(at_us),
            "matches_30d": self._matches_30d.before(at_us),
            "matches": matched,
            "match_rate": smoothed_rate(matched, sent),
            "like_back_rate": smoothed_rate(matched, received),
            "messages_sent_30d": self._messages_sent.within(30, at_us),
            "messages_received_30d": self._messages_received.within(30, at_us),
        }

    def _last_active_day(self, at_us: int) -> npt.NDArray[np.float32]:
        upto = int(np.searchsorted(self._events.at_us, at_us, side="left"))
        # Times ascend, so the value written last for a person is the latest.
        self._last_active_us[self._events.actor[self._seen : upto]] = self._events.at_us[self._seen : upto]
        self._seen = upto
        active = self._last_active_us > np.iinfo(np.int64).min
        day = np.full(active.size, np.nan, dtype=np.float32)
        day[active] = self._last_active_us[active] / DAY_US
        return day


def _stacked(layout: Layout, columns: dict[str, npt.NDArray[np.generic]]) -> Floats:
    missing = [name for name in layout.columns if name not in columns]
    if missing:
        raise FeatureSnapshotError(f"The layout `{layout.name}` has the column `{missing[0]}`, which nothing computes.")
    first = columns[layout.columns[0]]
    out = np.empty((first.size, layout.width), dtype=np.float32)
    for index, name in enumerate(layout.columns):
        out[:, index] = columns[name]
    return out


def _differs(left: Floats, right: Floats) -> npt.NDArray[np.bool_]:
    # Bits, not values: NaN means "never" and equals itself.
    return np.asarray((left.view(np.uint32) != right.view(np.uint32)).any(axis=1))
