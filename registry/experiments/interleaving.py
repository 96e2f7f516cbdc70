"""Team-draft interleaving: compare two releases within one list (Radlinski, Kurup, Joachims: CIKM 2008).

In every round a coin decides which release picks first, and each adds its best person not yet in the list. Who is
chosen from the list counts for the release that put the person there. Two releases of equal worth win equally often,
because each gets every place equally often. One requester sees both, which takes far fewer requesters than two arms.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
FIRST, SECOND = 0, 1


@dataclass(frozen=True)
class Interleaved:
    """The list int64[n], best first, and the release that placed each person: int8[n] of FIRST or SECOND."""

    user_ids: Ids
    team: npt.NDArray[np.int8]


def team_draft(first: Ids, second: Ids, limit: int, rng: np.random.Generator) -> Interleaved:
    """Interleave two lists int64[...] without repeats into one of at most `limit` people."""
    lists, place = (first.tolist(), second.tolist()), [0, 0]
    shown: list[int] = []
    team: list[int] = []
    seen: set[int] = set()
    while len(shown) < limit:
        before = len(shown)
        starter = int(rng.integers(2))
        for number in (starter, 1 - starter):
            own = lists[number]
            while place[number] < len(own) and own[place[number]] in seen:
                place[number] += 1
            if place[number] < len(own) and len(shown) < limit:
                seen.add(own[place[number]])
                shown.append(own[place[number]])
                team.append(number)
        if len(shown) == before:
            break
    return Interleaved(np.array(shown, dtype=np.int64), np.array(team, dtype=np.int8))


def credit(team: npt.NDArray[np.int8], chosen: npt.NDArray[np.bool_]) -> int:
    """Return 1 where more people of the first release were chosen, -1 where more of the second, 0 for a draw."""
    ahead = int((team[chosen] == FIRST).sum()) - int((team[chosen] == SECOND).sum())
    return (ahead > 0) - (ahead < 0)


@dataclass(frozen=True)
class InterleavingOutcome:
    """How many lists each release won, and the two-sided p-value of the sign test on them."""

    first_wins: int
    second_wins: int
    draws: int
    p_value: float


def outcome(credited: npt.NDArray[np.integer]) -> InterleavingOutcome:
    """Return the outcome of the credited int[n] of independent requesters; draws say nothing."""
    from scipy.stats import binomtest

    first, second = int((credited > 0).sum()), int((credited < 0).sum())
    decided = first + second
    p_value = float(binomtest(first, decided).pvalue) if decided else 1.0
    return InterleavingOutcome(first, second, int((credited == 0).sum()), p_value)
