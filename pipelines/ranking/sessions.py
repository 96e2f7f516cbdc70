"""Instants at which a list was, or could have been, shown to somebody, and what they decided afterwards."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.features.events import Events

Ids = npt.NDArray[np.int64]
_DAY_US = 86_400_000_000
_LEFT_OUT = 0.2


@dataclass(frozen=True)
class Sessions:
    """First decisions of a window by person and day: session i holds the rows start[i] to start[i + 1] of `decided`.

    `actor` int64[n] are positions, `at_us` int64[n] the instant of each session's first decision.
    """

    decided: Events
    start: Ids
    actor: Ids
    at_us: Ids

    @classmethod
    def of(cls, decided: Events) -> "Sessions":
        """Group decisions, given in order of time, by actor and day."""
        day = decided.at_us // _DAY_US
        order = np.lexsort((decided.at_us, day, decided.actor))
        actor, days = decided.actor[order].astype(np.int64), day[order]
        is_first = np.ones(order.size, dtype=np.bool_)
        is_first[1:] = (actor[1:] != actor[:-1]) | (days[1:] != days[:-1])
        at = np.flatnonzero(is_first)
        ordered = Events(
            decided.user_ids, decided.actor[order], decided.target[order], decided.kind[order], decided.at_us[order]
        )
        start = np.append(at, order.size).astype(np.int64)
        return cls(ordered, start, actor[at], ordered.at_us[at])

    def __len__(self) -> int:
        return int(self.actor.size)

    def rows(self, session: int) -> slice:
        """Return the rows of `decided` in one session."""
        return slice(int(self.start[session]), int(self.start[session + 1]))


@dataclass(frozen=True)
class Requests:
    """One instant per person inside a window, and the decisions that they made from it on.

    Request i is by the person at `actor[i]` at `at_us[i]`, and the rows start[i] to stop[i] of `decided` follow it.
    """

    decided: Events
    actor: Ids
    at_us: Ids
    start: Ids
    stop: Ids

    @classmethod
    def drawn(cls, decided: Events, has_history: npt.NDArray[np.bool_], most: int, seed: int) -> "Requests":
        """Draw an instant for each person who likes somebody in the window, at most `most` of them.

        The instant is that of a decision in the second half of theirs in the window, with a fifth left to follow it, so
        that most have a history to be known by, as people have who are served; never the very first decision of
        somebody without `has_history` bool[n_people], if there are more. What happens at or after an instant is not
        known at it.
        """
        order = np.lexsort((decided.at_us, decided.actor))
        ordered = Events(
            decided.user_ids, decided.actor[order], decided.target[order], decided.kind[order], decided.at_us[order]
        )
        actor, start, count = np.unique(ordered.actor, return_index=True, return_counts=True)
        liking = np.add.reduceat(ordered.is_like.astype(np.int64), start) > 0 if actor.size else np.zeros(0, bool)
        actor, start, count = actor[liking].astype(np.int64), start[liking].astype(np.int64), count[liking]
        rng = np.random.default_rng([seed, 2])
        if actor.size > most:
            kept = np.sort(rng.choice(actor.size, size=most, replace=False))
            actor, start, count = actor[kept], start[kept], count[kept]
        low = np.maximum(count // 2, np.where(has_history[actor], 0, np.minimum(1, count - 1)))
        span = np.maximum((count * (1.0 - _LEFT_OUT)).astype(np.int64) - low, 0) + 1
        first = np.minimum(start + low + np.floor(rng.random(actor.size) * span).astype(np.int64), start + count - 1)
        at_us = ordered.at_us[first]
        # Decisions of the same instant are not known yet.
        while first.size and (tied := (first > start) & (ordered.at_us[np.maximum(first - 1, 0)] == at_us)).any():
            first = np.where(tied, first - 1, first)
        return cls(ordered, actor.astype(np.int64), at_us, first, start + count)

    def __len__(self) -> int:
        return int(self.actor.size)

    def after(self, request: int) -> slice:
        """Return the rows of `decided` from the instant of a request on."""
        return slice(int(self.start[request]), int(self.stop[request]))


def has_decided(events: Events) -> npt.NDArray[np.bool_]:
    """Say who decided on somebody among these events, bool[n]."""
    found = np.zeros(events.n_people, dtype=np.bool_)
    found[events.actor[events.is_decision]] = True
    return found
