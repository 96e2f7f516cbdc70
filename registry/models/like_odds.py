"""How likely one person likes another once they stand before each other: factors of likes *and passes*.

The log-odds of a like of `a` for `b` are `intercept + P_a . Q_b + lean of a + lean of b`. Unlike the scores of
candidate sources they know nothing of whom people meet: a pass is an answer, and a pair that never met is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.transforms import CONTENT_WIDTH
from infra.compiled import compiled, fixed
from registry.models.arrays import Floats, Ids

Doubles = NDArray[np.float64]

FILES: Final = {"odds_chooser": 2, "odds_chosen": 2, "odds_intercept": 1}
"""The arrays of an artefact and how many axes each has."""
PROFILE_FILES: Final = {"odds_profile_weights": 2, "odds_profile_base": 1, "odds_penalty": 1}
"""Those of `ProfileOdds`, which earlier artefacts do not have."""
_ROUNDS: Final = 4


class PersonOdds(NamedTuple):
    """The factors of one person in both roles, float32[d + 1] each."""

    chooser: Floats
    chosen: Floats


@dataclass(frozen=True, eq=False)
class ProfileOdds:
    """What profiles say of factors, and how far people lie from it.

    `weights` float32[c, 2(d + 1)] and `base` float32[2(d + 1)] map content inputs to the factors of both roles, the
    chooser's first; `penalty` float32[d + 1] is the inverse variance of a chooser's factors around that.
    """

    weights: Floats
    base: Floats
    penalty: Floats

    def of_profile(self, inputs: Floats) -> PersonOdds:
        """Return the factors that a profile, content inputs float32[c], lets expect."""
        chooser, chosen = np.split(np.asarray(inputs @ self.weights + self.base, dtype=np.float32), 2)
        return PersonOdds(chooser, chosen)


@dataclass(frozen=True, eq=False)
class LikeOdds:
    """Factors of everybody in both roles, float32[n, d + 1] each; the last column is what holds with everybody.

    In `chooser` that is how readily a person likes, in `chosen` how readily they are liked.
    """

    chooser: Floats
    chosen: Floats
    intercept: float
    by_profile: ProfileOdds | None = None

    def of_row(self, row: int) -> PersonOdds:
        """Return the factors of the person at a row."""
        return PersonOdds(self.chooser[row], self.chosen[row])

    def of_newcomer(self, inputs: Floats, liked: Ids, passed: Ids) -> PersonOdds | None:
        """Return the factors of somebody without a row, from their profile and the decisions made by now.

        `inputs` float32[c] are those of their profile; `liked` and `passed` int64 are rows. The decisions move the
        chooser as a round of the fit does, with everybody else held fixed. None where nothing was learned of profiles.
        """
        if self.by_profile is None:
            return None
        expected = self.by_profile.of_profile(inputs)
        rows = np.concatenate([liked, passed])
        if not len(rows):
            return expected
        answers = np.where(np.arange(len(rows)) < len(liked), 0.5, -0.5)
        chooser = _answering(expected.chooser, self.by_profile.penalty, self.chosen[rows], answers, self.intercept)
        return PersonOdds(chooser, expected.chosen)

    def between(self, person: PersonOdds | None, rows: Ids) -> tuple[Floats, Floats]:
        """Return the log-odds that a person likes those at `rows`, and of the reverse, float32[m] each.

        Whoever is unknown, None or at row -1, gets NaN.
        """
        if person is None:
            nothing = np.full(len(rows), np.nan, dtype=np.float32)
            return nothing, nothing
        own = (fixed(person.chooser), fixed(person.chosen))
        return _between(fixed(self.chooser), fixed(self.chosen), np.float32(self.intercept), own, rows)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return what `of` reads, by the names of FILES and PROFILE_FILES."""
        found: dict[str, NDArray[np.generic]] = dict(
            zip(FILES, (self.chooser, self.chosen, np.array([self.intercept], np.float32)), strict=True)
        )
        if (by := self.by_profile) is not None:
            found |= dict(zip(PROFILE_FILES, (by.weights, by.base, by.penalty), strict=True))
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the odds that these arrays hold."""
        chooser, chosen, intercept = (arrays[name] for name in FILES)
        by_profile = None
        if PROFILE_FILES.keys() <= arrays.keys():
            by_profile = ProfileOdds(*(arrays[name] for name in PROFILE_FILES))  # type: ignore[arg-type]  # the same
        return cls(chooser, chosen, float(intercept[0]), by_profile)  # type: ignore[arg-type]  # float32 by `read_npy`

    def check(self, n: int) -> str | None:
        """Return what is wrong with the numbers of `n` people, or None."""
        if self.chooser.shape != self.chosen.shape or len(self.chooser) != n or not self.chooser.shape[1]:
            return f"the odds of a like are not those of {n} people"
        if (by := self.by_profile) is not None:
            width = self.chooser.shape[1]
            if by.weights.shape != (CONTENT_WIDTH, 2 * width) or len(by.base) != 2 * width or len(by.penalty) != width:
                return "the odds of a like do not go with their map from profiles"
        if not all(np.isfinite(values).all() for values in self.arrays().values()):
            return "the odds of a like hold NaN or infinite values"
        return None


def _answering(expected: Floats, penalty: Floats, theirs: Floats, answers: Doubles, intercept: float) -> Floats:
    """Return a chooser's factors after `answers` float64[k] (.5 a like, -.5 a pass) to people of factors `theirs`.

    The rounds of `pipelines/retrieval/like_odds.py`, for one person.
    """
    met = theirs.astype(np.float64)
    offset = met[:, -1] + intercept
    met[:, -1] = 1.0
    mean, variance = expected.astype(np.float64), 1.0 / penalty
    for _ in range(_ROUNDS):
        logit = met @ mean + offset
        c = np.sqrt(logit**2 + met**2 @ variance)
        weight = np.tanh(c / 2) / (2 * c)
        inverse = np.linalg.inv(np.diag(penalty) + (met.T * weight) @ met)
        mean = inverse @ (penalty * expected + met.T @ (answers - weight * offset))
        variance = np.diag(inverse)
    return np.asarray(mean, dtype=np.float32)


@compiled
def _between(
    chooser: Floats, chosen: Floats, intercept: np.float32, own: tuple[Floats, Floats], rows: Ids
) -> tuple[Floats, Floats]:
    own_chooser, own_chosen = own
    forward = np.full(len(rows), np.nan, dtype=np.float32)
    backward = np.full(len(rows), np.nan, dtype=np.float32)
    last = chooser.shape[1] - 1
    for i in range(len(rows)):
        row = rows[i]
        if row < 0:
            continue
        there, back = intercept + own_chooser[last] + chosen[row, last], intercept
        back += chooser[row, last] + own_chosen[last]
        for k in range(last):
            there += own_chooser[k] * chosen[row, k]
            back += chooser[row, k] * own_chosen[k]
        forward[i], backward[i] = there, back
    return forward, backward
