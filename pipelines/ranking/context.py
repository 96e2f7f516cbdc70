"""What retrieval knew of a directed pair just before a decision: scores, taste so far, a like that waits.

Factors come from an embedding fitted before the window; likes count only strictly before the pair's instant.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_repo.transforms import PairContext
from pipelines.features.events import Events
from pipelines.retrieval.content import ContentInputs
from registry.embedding import Embedding, pair_scores

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
_BLOCK = 16_384


@dataclass(frozen=True)
class Factors:
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

    @cached_property
    def unit_chosen(self) -> Floats:
        """Return Q at length one, float32[n, d]: made once, because a request compares a handful of rows."""
        return np.asarray(self.chosen / np.maximum(np.linalg.norm(self.chosen, axis=1, keepdims=True), 1e-12))


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

    def liked_before(self, actors: Positions, targets: Positions, at_us: Positions) -> npt.NDArray[np.bool_]:
        """Say whose like of whom stood strictly before an instant, bool[n]: their latest decision was a like."""
        return self._events.standing_likes.hold(actors, targets, at_us - 1)


def pair_context(
    requesters: Positions,
    candidates: Positions,
    at_us: Positions,
    factors: Factors,
    *,
    likes: LikeHistory,
    last_likes: int,
    pending_likes: bool,
) -> PairContext:
    """Return the context of aligned pairs at an instant each, in both directions.

    Without `pending_likes` a like that waits for an answer stays unknown to the ranker (0 everywhere).
    """
    forward, backward = pair_scores(
        factors.chooser[requesters], factors.chosen[requesters], factors.chooser[candidates], factors.chosen[candidates]
    )
    unit = factors.unit_chosen
    taste = likes, last_likes
    zeros = np.zeros(requesters.size, dtype=np.float32)
    return PairContext(
        forward,
        backward,
        _similarity(requesters, candidates, at_us, unit, taste),
        likes.liked_before(candidates, requesters, at_us).astype(np.float32) if pending_likes else zeros,
        _similarity(candidates, requesters, at_us, unit, taste),
        likes.liked_before(requesters, candidates, at_us).astype(np.float32) if pending_likes else zeros,
    )


def _similarity(
    actors: Positions, targets: Positions, at_us: Positions, unit: Floats, taste: tuple[LikeHistory, int]
) -> Floats:
    """Return the highest cosine of a target's Q to the Q of the actor's last likes, float32[n], NaN without likes.

    A like of the target themselves is left out, as in serving: its cosine of 1 would tell that it waits for an answer.
    """
    likes, k = taste
    out = np.full(actors.size, np.nan, dtype=np.float32)
    for start in range(0, actors.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        liked = likes.last_before(actors[part], at_us[part], k + 1)
        other = liked != targets[part][:, None]
        other[:, k] &= other[:, :k].sum(axis=1) < k
        liked = np.where(other, liked, -1)
        best = np.full(liked.shape[0], -np.inf, dtype=np.float32)
        target = unit[targets[part]]
        for column in liked.T:
            there = np.flatnonzero(column >= 0)
            if not there.size:
                continue
            cosine = np.einsum("nd,nd->n", unit[column[there]], target[there])
            best[there] = np.maximum(best[there], cosine)
        out[part] = np.where(np.isfinite(best), best, np.nan)
    return out
