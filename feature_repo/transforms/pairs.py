"""When a like stands and when two people are a match: the one rule, for arrays of interactions.

A person's latest decision about another counts: a like or superlike stands until they pass on the same person. Two
people are a match while both their likes stand, until one of them blocks or reports the other, which is for good. A
like and a pass by the same person about the same person in the same microsecond count as a pass.
`duet.pair_state` in Postgres says the same of one pair; a property test holds them equal.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.kinds import DECISIONS, LIKES, SEPARATIONS, codes

Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

NEVER: Final = int(np.iinfo(np.int64).max)
"""The end of what has not ended, in microseconds."""
_PERSON_BITS: Final = 32  # people are numbered by position: two of them fit into one int64


@dataclass(frozen=True, eq=False)
class Intervals:
    """Times in which something holds of pairs, int64[n] each, ascending by pair and time.

    It holds at `began_us` and no longer at `ended_us` (NEVER where it still holds at the end of the data).
    """

    actor: Int64
    target: Int64
    began_us: Int64
    ended_us: Int64

    def hold(self, actors: Integers, targets: Integers, at_us: Int64) -> Bools:
        """Say of aligned pairs whether it holds at an instant each, bool[n]."""
        wanted, pair = _pair(actors, targets), self._pairs
        first, end = np.searchsorted(pair, wanted, side="left"), np.searchsorted(pair, wanted, side="right")
        holds = np.zeros(wanted.size, dtype=np.bool_)
        for more in range(int((end - first).max(initial=0))):  # nearly always one
            there = np.flatnonzero(first + more < end)
            row = first[there] + more
            holds[there] |= (self.began_us[row] <= at_us[there]) & (at_us[there] < self.ended_us[row])
        return holds

    @cached_property
    def _pairs(self) -> Int64:
        return _pair(self.actor, self.target)

    def take(self, rows: Bools) -> "Intervals":
        """Return some of the intervals."""
        return Intervals(self.actor[rows], self.target[rows], self.began_us[rows], self.ended_us[rows])


def standing_likes(actor: Integers, target: Integers, kind: Integers, at_us: Int64) -> Intervals:
    """Return when the like of `actor` for `target` stands, from interactions by position and kind code, [m] each."""
    decided = np.isin(kind, codes(DECISIONS))
    pair, at_us, like = _pair(actor[decided], target[decided]), at_us[decided], np.isin(kind[decided], codes(LIKES))
    ascending = bool(np.all(at_us[1:] >= at_us[:-1]))
    order = np.argsort(pair, kind="stable") if ascending else np.lexsort((at_us, pair))
    pair, at_us, like = pair[order], at_us[order], like[order]
    # One row for each pair and instant: a pass at that instant wins.
    start = np.flatnonzero(np.append(True, (pair[1:] != pair[:-1]) | (at_us[1:] != at_us[:-1]))[: pair.size])
    like = np.logical_and.reduceat(like, start) if start.size else like
    pair, at_us = pair[start], at_us[start]
    before = np.append(False, like[:-1] & (pair[1:] == pair[:-1]))[: like.size]
    turn = np.flatnonzero(like != before)  # a pass that ends a like, or a like that begins to stand
    ends = np.full(turn.size, NEVER, dtype=np.int64)
    followed = np.flatnonzero(pair[turn[1:]] == pair[turn[:-1]])
    ends[followed] = at_us[turn[1:]][followed]
    begins = like[turn]
    pair = pair[turn][begins]
    return Intervals(pair >> _PERSON_BITS, pair & ((1 << _PERSON_BITS) - 1), at_us[turn][begins], ends[begins])


def matches(actor: Integers, target: Integers, kind: Integers, at_us: Int64) -> Intervals:
    """Return when two people are a match, the one with the lower position as `actor`; takes what `standing_likes` does.

    There are several intervals of a pair where somebody passed and changed their mind again.
    """
    likes = standing_likes(actor, target, kind, at_us)
    pair, opposite = _pair(likes.actor, likes.target), _pair(likes.target, likes.actor)
    forward = np.flatnonzero(likes.actor < likes.target)
    first = np.searchsorted(pair, opposite[forward], side="left")
    count = np.searchsorted(pair, opposite[forward], side="right") - first
    # Each interval of one direction meets each of the other; what they have in common is a match.
    one = np.repeat(forward, count)
    other = np.repeat(first - np.cumsum(count) + count, count) + np.arange(one.size)
    both = Intervals(
        likes.actor[one],
        likes.target[one],
        np.maximum(likes.began_us[one], likes.began_us[other]),
        np.minimum(likes.ended_us[one], likes.ended_us[other]),
    )
    apart = np.isin(kind, codes(SEPARATIONS))
    low, high = np.minimum(actor[apart], target[apart]), np.maximum(actor[apart], target[apart])
    order = np.lexsort((at_us[apart], _pair(low, high)))
    separated, place = np.unique(_pair(low, high)[order], return_index=True)
    if separated.size:
        at = np.minimum(np.searchsorted(separated, _pair(both.actor, both.target)), separated.size - 1)
        ended = np.where(separated[at] == _pair(both.actor, both.target), at_us[apart][order][place][at], NEVER)
        both = Intervals(both.actor, both.target, both.began_us, np.minimum(both.ended_us, ended))
    return both.take(both.began_us < both.ended_us)


def _pair(actor: Integers, target: Integers) -> Int64:
    """Return one number for each directed pair of positions, ascending by actor and then by target."""
    return (actor.astype(np.int64) << _PERSON_BITS) | target.astype(np.int64)
