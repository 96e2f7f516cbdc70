"""Everybody's factors by position, and who liked whom before any instant."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.features.events import Events
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
    """Who liked whom and when, arranged so that 'the last likes before t' and 'liked before t' are look-ups."""

    def __init__(self, events: Events) -> None:
        likes = events.take(events.is_like)
        self._events = events
        self._times = np.unique(likes.at_us)
        rank = np.searchsorted(self._times, likes.at_us)
        key = likes.actor.astype(np.int64) * (self._times.size + 1) + rank
        order = np.argsort(key, kind="stable")
        self._key, self._liked = key[order], likes.target[order]

    def last_before(self, actors: Positions, at_us: Positions, k: int) -> npt.NDArray[np.int64]:
        """Return the positions of each actor's last k likes strictly before an instant, int64[n, k], -1 for none."""
        width = self._times.size + 1
        rank = np.searchsorted(self._times, at_us, side="left")
        end = np.searchsorted(self._key, actors * width + rank, side="left")
        start = np.searchsorted(self._key, actors * width, side="left")
        rows = end[:, None] - 1 - np.arange(k)
        there = rows >= start[:, None]
        liked = np.full(rows.shape, -1, dtype=np.int64)
        liked[there] = self._liked[rows[there]]
        return liked
