"""Prices of exposure: what it costs to show somebody, so that nobody is shown more often than they can answer.

Showing the best k of everybody's list under a capacity per person is a linear programme,

    max sum p_uv x_uv   with   sum_v x_uv <= k,   sum_u x_uv <= c_v,   0 <= x <= 1,

and the dual variable of a person's capacity is their price: at the optimal prices everybody's own best k by
`p_uv - price_v` keep all capacities at once. So a list is re-ranked by subtracting one number per person, and the
prices are computed offline on a sample of lists. They are found by projected subgradient (Shor 1985; for
recommendations under capacities see Christakopoulou, Kawale, Banerjee 2017), each step measured in shares of the
capacity, averaged over its second half, and then raised where somebody is still over capacity, as in an ascending
auction (Demange, Gale, Sotomayor 1986). Nothing is drawn: same lists, same prices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_CHUNK = 65_536
_FIRST_STEP = 0.5
_MOST_EXCESS = 3.0
_RAISE = 0.03
_LEAST_CAPACITY = 1e-9


@dataclass(frozen=True)
class SampledLists:
    """Lists that requesters would be ranked from: `candidates` int[m, w] (-1 = none), `scores` float32[m, w].

    A score is the probability of a match, or anything that falls and rises with it. `weight` float64[m] says how many
    answers each list stands for: a sample of requesters, asking as often as they are active.
    """

    candidates: npt.NDArray[np.integer]
    scores: npt.NDArray[np.float32]
    weight: Floats
    n_people: int

    @cached_property
    def listed(self) -> npt.NDArray[np.bool_]:
        """Return who is in any list, bool[n people]."""
        return np.bincount(self.candidates[self.candidates >= 0], minlength=self.n_people) > 0

    def chosen(self, prices: Floats, k: int, strength: float = 1.0) -> Iterator[tuple[slice, npt.NDArray[np.intp]]]:
        """Yield chunks of rows and the columns of their best k by score - strength * price, int[rows, k], unordered."""
        k = min(k, self.candidates.shape[1])
        offset = np.append(strength * prices, np.inf).astype(np.float32)  # the last stands for "none"
        for low in range(0, len(self.candidates), _CHUNK):
            part = slice(low, low + _CHUNK)
            left = self.scores[part] - offset[self.candidates[part]]
            yield part, np.argpartition(-left, k - 1, axis=1)[:, :k]

    def exposure(self, prices: Floats, k: int, strength: float = 1.0) -> Floats:
        """Return how often each person is shown in the best k of all lists, float64[n people]."""
        total = np.zeros(self.n_people)
        for part, columns in self.chosen(prices, k, strength):
            who = np.take_along_axis(self.candidates[part], columns, axis=1)
            shown = who >= 0
            weight = np.broadcast_to(self.weight[part, None], who.shape)[shown]
            total += np.bincount(who[shown], weights=weight, minlength=self.n_people)
        return total


@dataclass(frozen=True)
class ExposurePrices:
    """Prices float64[n people], in the unit of the scores, and the share of exposure that is still over capacity."""

    prices: Floats
    excess: float


def equal_capacity(lists: SampledLists, k: int, slack: float) -> Floats:
    """Return for everybody in a list `slack` times the exposure that equal shares would give, float64[n people]."""
    places = float((lists.weight * np.minimum((lists.candidates >= 0).sum(axis=1), k)).sum())
    return np.full(lists.n_people, slack * places / max(int(lists.listed.sum()), 1))


def exposure_prices(
    lists: SampledLists, capacity: Floats, k: int, *, rounds: int = 150, tolerance: float = 0.05
) -> ExposurePrices:
    """Return prices under which the best k of all lists keep everybody's exposure below capacity.

    Args:
        lists: a sample of all lists; the exposure compared is that of the sample, by its weights.
        capacity: float64[n people], in the same unit.
        k: places of a list.
        rounds: passes over the lists; each costs one selection of k per row.
        tolerance: share above capacity that is accepted.

    """
    spread = float(np.std(lists.scores[lists.candidates >= 0], dtype=np.float64))
    prices, summed = np.zeros(lists.n_people), np.zeros(lists.n_people)
    at_least = np.maximum(capacity, _LEAST_CAPACITY)
    n_descending = max(rounds * 2 // 3, 1)
    for number in range(n_descending):
        over = np.clip(lists.exposure(prices, k) / at_least - 1.0, -1.0, _MOST_EXCESS)
        prices = np.maximum(prices + spread * _FIRST_STEP / np.sqrt(number + 1.0) * over, 0.0)
        if number >= n_descending // 2:
            summed += prices
    prices = summed / (n_descending - n_descending // 2)
    for _ in range(rounds - n_descending):
        too_much = lists.exposure(prices, k) > capacity * (1 + tolerance)
        if not too_much.any():
            break
        prices[too_much] += spread * _RAISE
    exposure = lists.exposure(prices, k)
    return ExposurePrices(prices, float(np.maximum(exposure - capacity, 0.0).sum() / max(exposure.sum(), 1e-12)))
