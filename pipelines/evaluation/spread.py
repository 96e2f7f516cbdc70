"""Hold back a random part of all pairs, whenever they met: what is missing, beside what comes next.

Where tastes hold still and people come once, the next days say little of them; then lists are better judged by likes
that were taken out from all over the data. Both directions of a pair go together, so the answer to a like that is held
back cannot be seen.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.features.events import Events
from pipelines.retrieval.dataset import first_decisions

SHARE = 0.1
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class HeldBackPairs:
    """Events without the held-back pairs, and the first decisions on those pairs, moved behind everything else."""

    known: Events
    held_back: Events
    at_us: int

    @classmethod
    def of(cls, events: Events, until_us: int, seed: int, share: float = SHARE) -> "HeldBackPairs":
        """Hold back a `share` of the unordered pairs up to an instant; equal seeds hold back the same pairs."""
        known = events.between(None, until_us)
        low = np.minimum(known.actor, known.target).astype(np.uint64)
        high = np.maximum(known.actor, known.target).astype(np.uint64)
        mixed = (low * np.uint64(events.n_people) + high + np.uint64(seed + 1)) * _MIX
        mixed ^= mixed >> np.uint64(31)
        held = (mixed * _MIX >> np.uint64(40)).astype(np.float64) / 2**24 < share
        decided = first_decisions(known.take(held))
        at_us = until_us + 1
        moved = Events(
            decided.user_ids,
            decided.actor,
            decided.target,
            decided.kind,
            np.full(len(decided), at_us, dtype=np.int64),
        )
        return cls(known.take(~held), moved, at_us)

    def halves(self, seed: int) -> tuple[Events, Events]:
        """Split the held-back decisions by person: one half teaches, the other judges."""
        side = np.random.default_rng([seed, 3]).random(self.known.n_people) < 0.5
        return self.held_back.take(side[self.held_back.actor]), self.held_back.take(~side[self.held_back.actor])

    def matched(self, held_back: Events) -> npt.NDArray[np.bool_]:
        """Say which of some held-back decisions are likes that the other side returned, bool[m]."""
        likes = self.held_back.take(self.held_back.is_like)
        return np.asarray(held_back.is_like & np.isin(held_back.reversed_pair, likes.pair))
