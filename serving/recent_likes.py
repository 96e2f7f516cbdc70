"""Each person's latest likes, in memory: what their taste looks like to somebody who stands before them.

The ranker was trained with this in both directions, so serving must know it of candidates too, and three hundred
look-ups per request are too many. Loaded with the population; people without likes are not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from registry.embedding import Embedding

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
KEPT = 21
"""One more than the ranker compares with: a like of the very person who asks does not count."""


@dataclass(frozen=True)
class RecentLikes:
    """`user_ids` int64[n] ascending; `liked` int64[n, KEPT], latest first, -1 where there are fewer."""

    user_ids: Int64
    liked: Int64

    @classmethod
    def nobody(cls) -> "RecentLikes":
        """Return a table without anybody."""
        return cls(np.empty(0, np.int64), np.empty((0, KEPT), np.int64))

    @classmethod
    def build(cls, rows: Sequence[tuple[int, Sequence[int]]]) -> "RecentLikes":
        """Build from (user_id, liked ids latest first), sorted by user_id."""
        liked = np.full((len(rows), KEPT), -1, dtype=np.int64)
        for row, (_, ids) in enumerate(rows):
            latest = ids[:KEPT]
            liked[row, : len(latest)] = latest
        return cls(np.array([user_id for user_id, _ in rows], dtype=np.int64), liked)

    def of(self, user_ids: Int64, last: int, but: int) -> Int64:
        """Return int64[n, last + 1]: the latest `last` liked ids that are not `but`, -1 where there are none."""
        if not len(self.user_ids):
            return np.full((len(user_ids), min(last + 1, KEPT)), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.user_ids, user_ids), len(self.user_ids) - 1)
        liked = self.liked[at, : last + 1]
        others = (self.user_ids[at] == user_ids)[:, None] & (liked != but)
        others[:, last:] &= others[:, :last].sum(axis=1, keepdims=True) < last
        return np.where(others, liked, -1)

    def similarity(self, embedding: Embedding, user_ids: Int64, chosen: Float32, last: int, *, to: int) -> Float32:
        """Return float32[n]: highest cosine of Q `chosen` float32[d] of `to` to any Q each person liked, NaN without.

        A like of `to` themselves is left out: its cosine of 1 would tell that it waits for an answer.
        """
        liked = self.of(user_ids, last, to)
        rows = embedding.positions(liked.reshape(-1)).reshape(liked.shape)
        factors = embedding.chosen[np.maximum(rows, 0)]
        norms = embedding.chosen_norms[np.maximum(rows, 0)] * max(float(np.linalg.norm(chosen)), 1e-12)
        cosines = (factors @ chosen) / np.maximum(norms, 1e-12)
        best = np.where((rows >= 0) & (liked >= 0), cosines, -np.inf).max(axis=1, initial=-np.inf)
        return np.where(np.isfinite(best), best, np.nan).astype(np.float32)
