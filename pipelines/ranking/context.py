"""Everybody's factors by position, and who liked whom before any instant."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.features.events import UNBLOCK, Events
from pipelines.retrieval.content import ContentInputs
from registry.models.embedding import Embedding

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
_BLOCK = 16_384


@dataclass(frozen=True)
class EverybodysFactors:
    """Everybody's P and Q, float32[n, d] each, by position; from the profile where the fit knows nobody."""

    chooser: Floats
    chosen: Floats

    @classmethod
    def of(cls, embedding: Embedding, user_ids: npt.NDArray[np.int64], content_inputs: ContentInputs) -> Self:
        """Read the factors of `user_ids` int64[n]; `content_inputs` is asked only about people it does not know."""
        chooser, chosen = embedding.vectors(user_ids)
        unknown = np.flatnonzero(~embedding.known(user_ids))
        for start in range(0, unknown.size, _BLOCK):
            part = unknown[start : start + _BLOCK]
            chooser[part], chosen[part] = embedding.content_factors(content_inputs(part))
        return cls(chooser, chosen)


class LikeHistory:
    """Who liked whom and when, arranged so that 'the last likes before t' are look-ups.

    A like that was taken back by then, or that ended with a block which was, is none: of pairs of which something was
    taken back, only likes that stand count.
    """

    def __init__(self, events: Events) -> None:
        likes = events.take(events.is_like)
        self._events = events
        self._times = np.unique(likes.at_us)
        rank = np.searchsorted(self._times, likes.at_us)
        key = likes.actor.astype(np.int64) * (self._times.size + 1) + rank
        order = np.argsort(key, kind="stable")
        self._key, self._liked = key[order], likes.target[order]
        self._undone, self._undone_us = _undone(events)
        doubtful = np.isin(likes.pair[order], self._undone)
        self._doubtful_before = np.concatenate([[0], np.cumsum(doubtful)])  # so many among the rows before

    def last_before(self, actors: Positions, at_us: Positions, k: int) -> npt.NDArray[np.int64]:
        """Return the positions of each actor's last k likes strictly before an instant, int64[n, k], -1 for none."""
        width = self._times.size + 1
        rank = np.searchsorted(self._times, at_us, side="left")
        end = np.searchsorted(self._key, actors * width + rank, side="left")
        start = np.searchsorted(self._key, actors * width, side="left")
        liked = self._last(start, end, k)
        doubtful = np.flatnonzero(self._doubtful_before[end] > self._doubtful_before[start])
        more = k
        while doubtful.size:
            more *= 2  # some of the last ones count no more, so look further back
            wide = self._last(start[doubtful], end[doubtful], more)
            counts = self._still_liked(actors[doubtful], wide, at_us[doubtful])
            first = np.argsort(~counts, axis=1, kind="stable")[:, :k]
            found = np.where(np.take_along_axis(counts, first, 1), np.take_along_axis(wide, first, 1), -1)
            liked[doubtful] = found
            doubtful = doubtful[(found[:, -1] < 0) & (end[doubtful] - start[doubtful] > more)]
        return liked

    def _last(self, start: Positions, end: Positions, k: int) -> Positions:
        rows = end[:, None] - 1 - np.arange(k)
        there = rows >= start[:, None]
        liked = np.full(rows.shape, -1, dtype=np.int64)
        liked[there] = self._liked[rows[there]]
        return liked

    def _still_liked(self, actors: Positions, liked: Positions, at_us: Positions) -> npt.NDArray[np.bool_]:
        """Say of each actor's likes int64[n, m] which of them count just before an instant."""
        counts = liked >= 0
        actor, until = (np.broadcast_to(each[:, None], liked.shape) for each in (actors, at_us - 1))
        pair = actor * self._events.n_people + liked
        at = np.minimum(np.searchsorted(self._undone, pair), self._undone.size - 1)
        undone = np.nonzero(counts & (self._undone[at] == pair) & (self._undone_us[at] <= until))
        counts[undone] = self._events.standing_likes.hold(actor[undone], liked[undone], until[undone])
        return counts


def _undone(events: Events) -> tuple[Positions, Positions]:
    """Return the directed pairs whose like something that was taken back may have ended, and since when."""
    undone = events.take(events.is_undo)
    unblocked = undone.take(undone.kind == UNBLOCK)
    pair = np.concatenate([undone.pair, unblocked.reversed_pair])
    at_us = np.concatenate([undone.at_us, unblocked.at_us])
    order = np.argsort(at_us, kind="stable")
    pairs, first = np.unique(pair[order], return_index=True)
    return pairs, at_us[order][first]
