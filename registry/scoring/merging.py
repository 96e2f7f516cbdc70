"""Sources become one list, as compiled loops: everybody once, with the place in each source, and no more than fit."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled
from registry.models.arrays import Floats, Ids

_NOWHERE: Final = np.int32(2**31 - 1)
_SCATTER: Final = np.uint64(0x9E3779B97F4A7C15)


@compiled
def merged(ids: Ids, lengths: Ids, scores: Floats, propensity: Floats) -> tuple[Ids, NDArray[np.int32], Floats, Floats]:
    """Return ids int64[m] in order of first appearance, and their ranks, scores and propensity [m, sources].

    The sources come one after the other, `lengths` of each. The better place wins should a source name somebody twice.
    """
    n, s = len(ids), len(lengths)
    bits = 4
    while 1 << bits < 2 * n:
        bits += 1
    slots = np.full(1 << bits, -1, dtype=np.int64)
    unique = np.empty(n, dtype=np.int64)
    ranks = np.full((n, s), -1, dtype=np.int32)
    points = np.full((n, s), np.nan, dtype=np.float32)
    chances = np.full((n, s), np.nan, dtype=np.float32)
    m = at = 0
    for source in range(s):
        for place in range(lengths[source]):
            slot = np.int64((np.uint64(ids[at]) * _SCATTER) >> np.uint64(64 - bits))
            while slots[slot] >= 0 and unique[slots[slot]] != ids[at]:
                slot = (slot + 1) & ((1 << bits) - 1)
            row = slots[slot]
            if row < 0:
                row = slots[slot] = m
                unique[row] = ids[at]
                m += 1
            if ranks[row, source] < 0:
                ranks[row, source], points[row, source], chances[row, source] = place, scores[at], propensity[at]
            at += 1
    return unique[:m], ranks[:m], points[:m], chances[:m]


@compiled
def _best_places(ranks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the best place of each row in any source beside the first, int32[m]."""
    best = np.full(len(ranks), _NOWHERE, dtype=np.int32)
    for row in range(len(ranks)):
        for source in range(1, ranks.shape[1]):
            if 0 <= ranks[row, source] < best[row]:
                best[row] = ranks[row, source]
    return best


@compiled
def bounded(ranks: NDArray[np.int32], n: int, share: int) -> tuple[Ids, int]:
    """Return the rows int64[<=n] that fit into `n` places, and how many places of the other sources count, or -1: all.

    The sources beside the first keep `share` places each and what the first one leaves, the best places of each before
    the next ones. Of the first source the last go, unless another one found them too.
    """
    m, s = ranks.shape
    best, is_first = _best_places(ranks), ranks[:, 0] >= 0
    found = np.zeros(ranks.max() + 2, dtype=np.int64)  # by place, those whom only other sources found
    for place in best[~is_first]:
        found[place] += 1
    room = max((s - 1) * share, n - np.count_nonzero(is_first))
    places = taken = counted = 0  # every place below `places` fits, and so many of the next one as there is room left
    while places < len(found) and taken + found[places] <= room:
        taken += found[places]
        counted = places + 1 if found[places] else counted
        places += 1
    all_fit = places == len(found)
    left = room - taken
    if left and not all_fit:
        counted = places + 1
    kept = np.zeros(m, dtype=np.bool_)
    for row in range(m):
        if is_first[row]:
            kept[row] = best[row] < _NOWHERE
        else:
            kept[row] = best[row] < places or (best[row] == places and left > 0)
            left -= best[row] == places
    more = n - np.count_nonzero(kept)
    kept[np.flatnonzero(is_first & ~kept)[: max(more, 0)]] = True
    return np.flatnonzero(kept)[:n], -1 if all_fit else counted
