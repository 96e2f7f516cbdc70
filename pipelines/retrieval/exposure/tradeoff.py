"""What prices cost and bring: matches and the inequality of exposure at several strengths, as a small table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.metrics import gini
from pipelines.retrieval.exposure.prices import SampledLists

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TradeOff:
    """One strength of the prices and what it does to the best k of all lists."""

    strength: float
    matches: float
    """Expected matches where everybody answers everybody they are shown to."""
    answered_matches: float
    """Expected matches where everybody answers no more than their capacity, the most promising first."""
    gini: float
    over_capacity: float
    """The share of exposure beyond somebody's capacity."""


def trade_offs(
    lists: SampledLists, prices: Floats, capacity: Floats, k: int, strengths: Sequence[float] = (0.0, 0.25, 0.5, 1.0)
) -> list[TradeOff]:
    """Return what each strength does; strength 0 is the order without prices."""
    return [_trade_off(lists, strength * prices, capacity, k, strength=strength) for strength in strengths]


def _trade_off(lists: SampledLists, offset: Floats, capacity: Floats, k: int, *, strength: float) -> TradeOff:
    parts: list[tuple[npt.NDArray[np.int64], Floats, Floats]] = []
    for part, columns in lists.chosen(offset, k):
        who = np.take_along_axis(lists.candidates[part], columns, axis=1)
        score = np.take_along_axis(lists.scores[part], columns, axis=1)
        shown = who >= 0
        weight = np.broadcast_to(lists.weight[part, None], who.shape)
        parts.append((who[shown].astype(np.int64), score[shown].astype(np.float64), weight[shown]))
    people = np.concatenate([part[0] for part in parts])
    promise, times = np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
    exposure = np.bincount(people, weights=times, minlength=lists.n_people)
    return TradeOff(
        strength=strength,
        matches=float(promise @ times),
        answered_matches=_answered(people, promise, times, capacity),
        gini=gini(exposure[lists.listed]),
        over_capacity=float(np.maximum(exposure - capacity, 0.0).sum() / exposure.sum()),
    )


def _answered(who: npt.NDArray[np.int64], score: Floats, weight: Floats, capacity: Floats) -> float:
    order = np.lexsort((-score, who))
    who, score, weight = who[order], score[order], weight[order]
    used = np.cumsum(weight)
    start = np.searchsorted(who, who)  # the first row of each person
    before = used - weight - (used - weight)[start]
    return float(score @ np.clip(capacity[who] - before, 0.0, weight))


def as_text(rows: Sequence[TradeOff]) -> str:
    """Return the rows as an aligned table; losses and gains are against the first row."""
    lines = ["strength   matches            answered           exposure Gini   over capacity"]
    lines += [
        f"{row.strength:8.2f}   {row.matches:9.1f} {_change(row.matches, rows[0].matches):>7}  "
        f"{row.answered_matches:9.1f} {_change(row.answered_matches, rows[0].answered_matches):>7}"
        f"   {row.gini:13.3f}   {row.over_capacity:13.1%}"
        for row in rows
    ]
    return "\n".join(lines)


def _change(value: float, base: float) -> str:
    return f"{value / base - 1:+.1%}" if base else ""
