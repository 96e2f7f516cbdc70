"""How likely one person likes another once they stand before each other: factors of likes *and passes*.

The log-odds of a like of `a` for `b` are `intercept + P_a . Q_b + lean of a + lean of b`. Unlike the scores of
candidate sources they know nothing of whom people meet: a pass is an answer, and a pair that never met is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled, fixed
from registry.models.arrays import Floats, Ids

FILES: Final = {"odds_chooser": 2, "odds_chosen": 2, "odds_intercept": 1}
"""The arrays of an artefact and how many axes each has."""


@dataclass(frozen=True, eq=False)
class LikeOdds:
    """Factors of everybody in both roles, float32[n, d + 1] each; the last column is what holds with everybody.

    In `chooser` that is how readily a person likes, in `chosen` how readily they are liked.
    """

    chooser: Floats
    chosen: Floats
    intercept: float

    def between(self, own: int, rows: Ids) -> tuple[Floats, Floats]:
        """Return the log-odds that the person at row `own` likes those at `rows`, and of the reverse, float32[m] each.

        Whoever is unknown, at row -1, gets NaN.
        """
        return _between(fixed(self.chooser), fixed(self.chosen), np.float32(self.intercept), own, rows)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return what `of` reads, by the names of FILES."""
        return dict(zip(FILES, (self.chooser, self.chosen, np.array([self.intercept], np.float32)), strict=True))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the odds that these arrays hold."""
        chooser, chosen, intercept = (arrays[name] for name in FILES)
        return cls(chooser, chosen, float(intercept[0]))  # type: ignore[arg-type]  # float32 by `read_npy`

    def check(self, n: int) -> str | None:
        """Return what is wrong with the numbers of `n` people, or None."""
        if self.chooser.shape != self.chosen.shape or len(self.chooser) != n or not self.chooser.shape[1]:
            return f"the odds of a like are not those of {n} people"
        if not all(np.isfinite(values).all() for values in (self.chooser, self.chosen, self.intercept)):
            return "the odds of a like hold NaN or infinite values"
        return None


@compiled
def _between(chooser: Floats, chosen: Floats, intercept: np.float32, own: int, rows: Ids) -> tuple[Floats, Floats]:
    forward = np.full(len(rows), np.nan, dtype=np.float32)
    backward = np.full(len(rows), np.nan, dtype=np.float32)
    if own < 0:
        return forward, backward
    last = chooser.shape[1] - 1
    for i in range(len(rows)):
        row = rows[i]
        if row < 0:
            continue
        there, back = intercept + chooser[own, last] + chosen[row, last], intercept
        back += chooser[row, last] + chosen[own, last]
        for k in range(last):
            there += chooser[own, k] * chosen[row, k]
            back += chooser[row, k] * chosen[own, k]
        forward[i], backward[i] = there, back
    return forward, backward
