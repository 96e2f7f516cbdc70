"""Interactions as compact arrays, sorted by time: what every offline computation reads.

People are positions into an ascending id array, kinds are small codes, times are microseconds. A frame without
the contract's columns, with times that carry no zone, or with an unknown kind is refused.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.kinds import DECISIONS, KINDS, LIKES, SEPARATIONS, UNDOS, codes
from feature_repo.transforms.pairs import Intervals, matches, separations, standing_likes, standing_passes, taken_back
from pipelines.features.errors import MalformedEvents

LIKE, PASS, SUPERLIKE, MESSAGE, BLOCK, REPORT, UNLIKE, UNBLOCK = range(len(KINDS))
COLUMNS = ("actor_id", "target_id", "kind", "occurred_at")


def microseconds(instant: pd.Timestamp) -> int:
    """Return an aware instant as whole microseconds since 1970."""
    if instant.tzinfo is None:
        raise MalformedEvents(f"The instant {instant} has no time zone: give it in UTC.")
    return int(instant.value) // 1_000


def instant(at_us: int) -> pd.Timestamp:
    """Return microseconds since 1970 as an aware instant."""
    return pd.Timestamp(at_us, unit="us", tz="UTC")


@dataclass(frozen=True)
class Events:
    """Interactions by position: `user_ids` int64[n] ascending, the rest of length m in ascending order of time."""

    user_ids: npt.NDArray[np.int64]
    actor: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int8]
    at_us: npt.NDArray[np.int64]

    @classmethod
    def from_frame(cls, interactions: pd.DataFrame, user_ids: npt.NDArray[np.int64] | None = None) -> Self:
        """Read a frame of the contract's interactions; rows that name people outside `user_ids` are left out."""
        missing = [column for column in COLUMNS if column not in interactions.columns]
        if missing:
            raise MalformedEvents(f"The interactions lack the column {missing[0]}: import them again.")
        times = interactions["occurred_at"]
        if not isinstance(times.dtype, pd.DatetimeTZDtype):
            raise MalformedEvents(f"The interactions' occurred_at is {times.dtype}, not an instant in UTC.")
        at_us = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
        kind = _kind_codes(interactions["kind"])
        actor_ids = interactions["actor_id"].to_numpy(dtype=np.int64)
        target_ids = interactions["target_id"].to_numpy(dtype=np.int64)
        ids = np.unique(np.concatenate([actor_ids, target_ids])) if user_ids is None else user_ids
        actor, target = _positions(ids, actor_ids), _positions(ids, target_ids)
        known = (actor >= 0) & (target >= 0)
        if not known.all():
            actor, target, kind, at_us = actor[known], target[known], kind[known], at_us[known]
        if at_us.size and np.any(np.diff(at_us) < 0):
            order = np.lexsort((target, actor, at_us))
            actor, target, kind, at_us = actor[order], target[order], kind[order], at_us[order]
        return cls(ids, actor, target, kind, at_us)

    def __len__(self) -> int:
        return int(self.at_us.size)

    @property
    def n_people(self) -> int:
        """Return how many people there are, active or not."""
        return int(self.user_ids.size)

    @cached_property
    def is_like(self) -> npt.NDArray[np.bool_]:
        """Return which rows are likes or superlikes, bool[m]."""
        return np.isin(self.kind, codes(LIKES))

    @cached_property
    def is_decision(self) -> npt.NDArray[np.bool_]:
        """Return which rows are likes, superlikes or passes, bool[m]."""
        return np.isin(self.kind, codes(DECISIONS))

    @cached_property
    def is_separation(self) -> npt.NDArray[np.bool_]:
        """Return which rows are blocks or reports, bool[m]."""
        return np.isin(self.kind, codes(SEPARATIONS))

    @cached_property
    def is_undo(self) -> npt.NDArray[np.bool_]:
        """Return which rows take something back, bool[m]."""
        return np.isin(self.kind, codes(UNDOS))

    @cached_property
    def is_lasting_decision(self) -> npt.NDArray[np.bool_]:
        """Return which rows are decisions that were not taken back by the end of these events, bool[m]: what to learn.

        Most likes that are taken back were slips of a finger; what their person thinks is not known.
        """
        return self.is_decision & ~taken_back(self.actor, self.target, self.kind, self.at_us)

    @cached_property
    def standing_likes(self) -> Intervals:
        """Return when whose like of whom stands, by position."""
        return standing_likes(self.actor, self.target, self.kind, self.at_us)

    def are_open(
        self, persons: npt.NDArray[np.integer[Any]], others: npt.NDArray[np.integer[Any]], at_us: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Say of aligned positions and instants whether neither a decision of the person nor a separation stands."""
        apart = self._separations.hold(np.minimum(persons, others), np.maximum(persons, others), at_us)
        likes, passes = self.standing_likes, self._standing_passes
        return ~(apart | likes.hold(persons, others, at_us) | passes.hold(persons, others, at_us))

    @cached_property
    def _separations(self) -> Intervals:
        return separations(self.actor, self.target, self.kind, self.at_us)

    @cached_property
    def _standing_passes(self) -> Intervals:
        return standing_passes(self.actor, self.target, self.kind, self.at_us)

    @cached_property
    def matches(self) -> Intervals:
        """Return when which two people are a match, by position."""
        return matches(self.actor, self.target, self.kind, self.at_us)

    @property
    def pair(self) -> npt.NDArray[np.int64]:
        """Return a number per directed pair, int64[m]: actor * n + target."""
        return self.actor.astype(np.int64) * self.n_people + self.target

    @property
    def reversed_pair(self) -> npt.NDArray[np.int64]:
        """Return the number of the opposite direction of each row's pair, int64[m]."""
        return self.target.astype(np.int64) * self.n_people + self.actor

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> "Events":
        """Return some rows over the same people; `rows` must keep the order of time."""
        return Events(self.user_ids, self.actor[rows], self.target[rows], self.kind[rows], self.at_us[rows])

    def between(self, after_us: int | None, until_us: int) -> "Events":
        """Return the rows with after < time <= until; no `after` means from the beginning."""
        first = 0 if after_us is None else int(np.searchsorted(self.at_us, after_us, side="right"))
        return self.take(slice(first, int(np.searchsorted(self.at_us, until_us, side="right"))))


def _kind_codes(kinds: pd.Series) -> npt.NDArray[np.int8]:
    categories = kinds.astype("category")
    names = [str(name) for name in categories.cat.categories]
    unknown = [name for name in names if name not in KINDS]
    if unknown or bool(categories.isna().any()):
        raise MalformedEvents(f"The interactions hold the kind {(unknown or ['nothing'])[0]!r}: known are {KINDS}.")
    lookup = np.array([KINDS.index(name) for name in names] or [0], dtype=np.int8)
    return lookup[categories.cat.codes.to_numpy()]


def _positions(ids: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    if not ids.size:
        return np.full(wanted.size, -1, dtype=np.int32)
    at = np.minimum(np.searchsorted(ids, wanted), ids.size - 1)
    return np.where(ids[at] == wanted, at, -1).astype(np.int32)
