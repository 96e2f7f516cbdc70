"""When a like stands, when two people are separated and when they are a match: the one rule, for arrays.

A person's latest decision about another counts: a like or superlike stands until they pass on the same person or take
the like back. An `unlike` takes back a like and never a pass: afterwards the pair is as if it had not been liked.

Two people are separated from the first report for good, and while a block of one of them stands: an `unblock` ends the
block of the same person and nothing else. When it ends one, the likes of both from before end with it, so that no match
comes back unless both like again; passes stay.

Two people are a match while both their likes stand and they are not separated. Of what one person did about another in
the same microsecond, a pass or an `unlike` wins over a like, and a block over an `unblock`.
`duet.pair_state` in Postgres says the same of one pair; a property test holds them equal.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from feature_repo.kinds import DECISIONS, LIKES, Kind, code, codes

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
    rows = np.isin(kind, codes((*DECISIONS, Kind.UNLIKE)))
    pair, at, like = _pair(actor[rows], target[rows]), at_us[rows], np.isin(kind[rows], codes(LIKES))
    blocks = _blocks(actor, target, kind, at_us)
    ended = blocks.take(blocks.ended_us != NEVER)
    if ended.ended_us.size:
        both_ways = [_pair(ended.actor, ended.target), _pair(ended.target, ended.actor)]
        pair = np.concatenate([pair, *both_ways])
        at = np.concatenate([at, ended.ended_us, ended.ended_us])
        like = np.append(like, np.zeros(2 * ended.ended_us.size, dtype=np.bool_))
    return _held(pair, at, like, at_once=np.logical_and)


def standing_passes(actor: Integers, target: Integers, kind: Integers, at_us: Int64) -> Intervals:
    """Return when `actor` has passed on `target`; takes what `standing_likes` does."""
    rows = np.isin(kind, codes(DECISIONS))
    passed = kind[rows] == code(Kind.PASS)
    return _held(_pair(actor[rows], target[rows]), at_us[rows], passed, at_once=np.logical_or)


def separations(actor: Integers, target: Integers, kind: Integers, at_us: Int64) -> Intervals:
    """Return when two people are separated, the one with the lower position as `actor`; takes what the others do.

    Intervals of one pair may overlap: each side has its own.
    """
    blocks, reports = _blocks(actor, target, kind, at_us), kind == code(Kind.REPORT)
    one, other = np.append(blocks.actor, actor[reports]), np.append(blocks.target, target[reports])
    began = np.append(blocks.began_us, at_us[reports])
    ended = np.append(blocks.ended_us, np.full(int(reports.sum()), NEVER, dtype=np.int64))
    low, high = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((began, _pair(low, high)))
    return Intervals(low[order], high[order], began[order], ended[order])


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
    began = np.maximum(likes.began_us[one], likes.began_us[other])
    ended = np.minimum(likes.ended_us[one], likes.ended_us[other])
    matched = pair[one]
    apart = separations(actor, target, kind, at_us)
    separated = _pair(apart.actor, apart.target)
    start, end = np.searchsorted(separated, matched, side="left"), np.searchsorted(separated, matched, side="right")
    until = ended.copy()
    for more in range(int((end - start).max(initial=0))):  # nearly always none or one
        # The end of a separation ends both likes, so the first that was not over when the match began is its end.
        there = np.flatnonzero(start + more < end)
        row = start[there] + more
        cut = np.where(apart.ended_us[row] > began[there], apart.began_us[row], NEVER)
        until[there] = np.minimum(until[there], cut)
    both = Intervals(likes.actor[one], likes.target[one], began, until)
    return both.take(both.began_us < both.ended_us)


def taken_back(actor: Integers, target: Integers, kind: Integers, at_us: Int64) -> Bools:
    """Say which interactions are likes that the same person took back later, bool[m]."""
    undone = kind == code(Kind.UNLIKE)
    found = np.zeros(kind.size, dtype=np.bool_)
    if undone.any():
        order = np.lexsort((-at_us[undone], _pair(actor[undone], target[undone])))
        pairs, latest = np.unique(_pair(actor[undone], target[undone])[order], return_index=True)
        likes = np.flatnonzero(np.isin(kind, codes(LIKES)))
        pair = _pair(actor[likes], target[likes])
        at = np.minimum(np.searchsorted(pairs, pair), pairs.size - 1)
        found[likes] = (pairs[at] == pair) & (at_us[likes] <= at_us[undone][order][latest][at])
    return found


def _blocks(actor: Integers, target: Integers, kind: Integers, at_us: Int64) -> Intervals:
    """Return when the block of `target` by `actor` stands."""
    rows = np.isin(kind, codes((Kind.BLOCK, Kind.UNBLOCK)))
    blocked = kind[rows] == code(Kind.BLOCK)
    return _held(_pair(actor[rows], target[rows]), at_us[rows], blocked, at_once=np.logical_or)


def _held(pair: Int64, at_us: Int64, begins: Bools, *, at_once: np.ufunc) -> Intervals:
    """Return when something holds of directed pairs that rows begin or end; `at_once` joins rows of one instant."""
    ascending = bool(np.all(at_us[1:] >= at_us[:-1]))
    order = np.argsort(pair, kind="stable") if ascending else np.lexsort((at_us, pair))
    pair, at_us, begins = pair[order], at_us[order], begins[order]
    start = np.flatnonzero(np.append(True, (pair[1:] != pair[:-1]) | (at_us[1:] != at_us[:-1]))[: pair.size])
    begins = at_once.reduceat(begins, start) if start.size else begins
    pair, at_us = pair[start], at_us[start]
    before = np.append(False, begins[:-1] & (pair[1:] == pair[:-1]))[: begins.size]
    turn = np.flatnonzero(begins != before)
    ends = np.full(turn.size, NEVER, dtype=np.int64)
    followed = np.flatnonzero(pair[turn[1:]] == pair[turn[:-1]])
    ends[followed] = at_us[turn[1:]][followed]
    held = begins[turn]
    pair = pair[turn][held]
    return Intervals(pair >> _PERSON_BITS, pair & ((1 << _PERSON_BITS) - 1), at_us[turn][held], ends[held])


def _pair(actor: Integers, target: Integers) -> Int64:
    """Return one number for each directed pair of positions, ascending by actor and then by target."""
    return (actor.astype(np.int64) << _PERSON_BITS) | target.astype(np.int64)
