"""Each person's latest likes, in memory: what their taste looks like to somebody who stands before them.

The ranker was trained with this in both directions, so serving must know it of candidates too, and three hundred
look-ups per request are too many. Loaded with the population: a mapped table with a row for each of its people, and a
short one of those whose likes changed since.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from infra.db.id_rows import IdRows
from registry.models.embedding import Embedding

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
KEPT = 21
"""One more than the ranker compares with: a like of the very person who asks does not count."""
_FILE = "liked.npy"
_BLOCK = 65_536


@dataclass(frozen=True)
class RecentLikes:
    """`user_ids` int64[n] ascending; `liked` int32 or int64[n, KEPT], latest first, -1 where there are fewer.

    `late` holds people whose likes changed since, or who came since: what it says of somebody counts.
    """

    user_ids: Int64
    liked: NDArray[Any]
    late: "RecentLikes | None" = None

    @classmethod
    def nobody(cls) -> Self:
        """Return a table without anybody."""
        return cls(np.empty(0, np.int64), np.empty((0, KEPT), np.int64))

    @classmethod
    def build(cls, rows: Sequence[tuple[int, Sequence[int]]]) -> Self:
        """Build from (user_id, liked ids latest first), sorted by user_id."""
        liked = np.full((len(rows), KEPT), -1, dtype=np.int64)
        for row, (_, ids) in enumerate(rows):
            latest = ids[:KEPT]
            liked[row, : len(latest)] = latest
        return cls(np.array([user_id for user_id, _ in rows], dtype=np.int64), liked)

    def upsert(self, other: "RecentLikes") -> Self:
        """Return the table with what `other` says of people, in time that does not grow with the table."""
        if not len(other.user_ids):
            return self
        late = other if self.late is None else _merged(self.late, other)
        return replace(self, late=late)

    def aligned(self, user_ids: Int64) -> "RecentLikes":
        """Return one table with a row for each of `user_ids` (ascending), in 32 bits where the ids allow it."""
        liked = np.empty((len(user_ids), KEPT), dtype=self._narrowest())
        for start in range(0, len(user_ids), _BLOCK):  # blocks keep the memory of a million people small
            part = user_ids[start : start + _BLOCK]
            liked[start : start + len(part)] = self.latest(part, KEPT)
        return RecentLikes(user_ids, liked)

    def latest(self, user_ids: Int64, width: int) -> Int64:
        """Return int64[n, width]: the latest liked ids of each of `user_ids`, -1 where there are none."""
        out = np.full((len(user_ids), width), -1, dtype=np.int64)
        for table in (self,) if self.late is None else (self, self.late):
            rows = table.rows.find(user_ids)
            known = np.flatnonzero(rows >= 0)
            out[known] = table.liked[rows[known], :width]
        return out

    @cached_property
    def rows(self) -> IdRows:
        """Return where each person's row is."""
        return IdRows.of(self.user_ids)

    def save(self, directory: Path) -> None:
        """Write the table, which must be `aligned`, into `directory`; the ids are those of the people beside it."""
        np.save(directory / _FILE, self.liked, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, user_ids: Int64, *, mapped: bool = True) -> Self:
        """Read what `save` wrote; `mapped` shares the pages between processes that open the same file."""
        mode: Literal["r"] | None = "r" if mapped else None
        return cls(user_ids, np.asarray(np.load(directory / _FILE, mmap_mode=mode, allow_pickle=False)))

    def _narrowest(self) -> type[np.signedinteger[Any]]:
        tables = [self.liked] if self.late is None else [self.liked, self.late.liked]
        highest = max((int(table.max(initial=-1)) for table in tables), default=-1)
        return np.int32 if highest <= np.iinfo(np.int32).max else np.int64

    def similarity(self, embedding: Embedding, user_ids: Int64, chosen: Float32, last: int, *, to: int) -> Float32:
        """Return float32[n]: highest cosine of Q `chosen` float32[d] of `to` to any Q each person liked, NaN without.

        A like of `to` themselves is left out: its cosine of 1 would tell that it waits for an answer.
        """
        return embedding.nearest_liked(self.latest(user_ids, min(last + 1, KEPT)), chosen, last, but=to)


def _merged(known: RecentLikes, fresh: RecentLikes) -> RecentLikes:
    kept = ~np.isin(known.user_ids, fresh.user_ids)
    ids = np.concatenate([known.user_ids[kept], fresh.user_ids])
    order = np.argsort(ids, kind="stable")
    return RecentLikes(ids[order], np.concatenate([known.liked[kept], fresh.liked])[order])
