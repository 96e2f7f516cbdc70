"""Fit the log-odds of a like on likes and passes: a logistic factorisation that learns its own penalties.

Variational Bayes with a Gaussian of each person's factors, independent across coordinates between rounds, and the bound
of Jaakkola and Jordan (2000) for the logistic likelihood. Factors are pulled to what the profile predicts by a linear
map, each coordinate as strongly as the spread around that prediction asks for (automatic relevance determination,
MacKay 1995), so that coordinates nobody needs vanish and no number of dimensions has to be searched for.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.compiled import compiled
from pipelines.features.events import Events
from pipelines.retrieval.config import NeighboursConfig
from pipelines.retrieval.content import ContentInputs, ContentMap, fit_content_map
from registry.models.like_odds import LikeOdds, ProfileOdds

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
_FIRST_PENALTY = 2.0
_FIRST_SPREAD = 0.3
_FIRST_VARIANCE = 0.01
_TINY = 1e-9
_MAP_EVERY = 3
"""Rounds between two fits of the map from profiles, which moves little and costs a pass over everybody."""
_BLOCKS_PER_THREAD = 8


@dataclass
class _Side:
    """One role: the decisions of row i are start[i]:start[i + 1] of `other`, `liked`; its factors float64[n, d + 1]."""

    start: Ints
    other: Places
    liked: Bools
    mean: Doubles
    variance: Doubles
    prior: Doubles
    penalty: Doubles
    by_profile: ContentMap | None = None

    @classmethod
    def of(cls, own: Places, other: Places, liked: Bools, first: Doubles) -> "_Side":
        order = np.argsort(own, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=len(first)))]).astype(np.int64)
        return cls(
            start, other[order], liked[order], first, np.full_like(first, _FIRST_VARIANCE), np.zeros_like(first),
            np.full(first.shape[1], _FIRST_PENALTY),
        )  # fmt: skip

    @property
    def decides(self) -> npt.NDArray[np.bool_]:
        """Return who has a decision in this role, bool[n]."""
        return np.diff(self.start) > 0

    def solve(self, opposite: "_Side", intercept: float, pool: ThreadPoolExecutor, blocks: int) -> float:
        """Move everybody's factors to what their decisions ask for, and return the intercept without the mean lean."""
        theirs, doubt = opposite.mean.copy(), opposite.variance.copy()
        edges = np.searchsorted(self.start, np.linspace(0, self.start[-1], blocks + 1)[1:-1])
        bounds = [0, *edges.tolist(), len(self.mean)]

        def part(number: int) -> None:
            _half_round(
                bounds[number], bounds[number + 1], self.start, self.other, self.liked, self.mean, self.variance,
                self.prior, self.penalty, theirs, doubt, intercept,
            )  # fmt: skip

        list(pool.map(part, range(blocks)))
        lean = float(self.mean[self.decides, -1].mean())
        self.mean[:, -1] -= lean
        return intercept + lean

    def learn_prior(self, inputs: ContentInputs, ridge: float) -> None:
        """Let profiles predict the factors."""
        self.by_profile = fit_content_map(inputs, self.mean.astype(np.float32), self.decides, ridge)
        self.prior = self.by_profile.predict_all(inputs, len(self.mean)).astype(np.float64)

    def learn_penalty(self) -> None:
        """Set each coordinate's penalty to the inverse of its variance around the prior."""
        at = self.decides
        self.penalty = at.sum() / ((self.mean - self.prior) ** 2 + self.variance)[at].sum(axis=0)


def fit_like_odds(
    decided: Events, inputs: ContentInputs | None, config: NeighboursConfig | None = None
) -> LikeOdds | None:
    """Fit on decisions, one per directed pair; None where there are no likes or no passes, so that nothing is answered.

    People are those of `decided.user_ids`; `inputs` gives float32[m, c] of those at m positions, None knows no profile.
    Whoever has no decision in a role gets what the profile predicts. The same inputs give the same odds.
    """
    config = config or NeighboursConfig()
    liked = decided.is_like
    if not config.odds_dimensions or not liked.any() or liked.all():
        return None
    rng, width = np.random.default_rng(config.seed), config.odds_dimensions
    first = np.zeros((2, decided.n_people, width + 1))
    first[:, :, :width] = _FIRST_SPREAD * rng.standard_normal((2, decided.n_people, width))
    chooser, chosen = (
        _Side.of(decided.actor, decided.target, liked, first[0]),
        _Side.of(decided.target, decided.actor, liked, first[1]),
    )
    intercept = float(np.log(liked.mean() / (1 - liked.mean())))
    blocks = config.threads * _BLOCKS_PER_THREAD
    with ThreadPoolExecutor(max_workers=config.threads) as pool:
        for number in range(config.odds_rounds):
            intercept = chosen.solve(chooser, intercept, pool, blocks)
            intercept = chooser.solve(chosen, intercept, pool, blocks)
            if inputs is not None and number % _MAP_EVERY == _MAP_EVERY - 1:
                chooser.learn_prior(inputs, config.odds_content_ridge)
                chosen.learn_prior(inputs, config.odds_content_ridge)
            if number:
                chooser.learn_penalty()
                chosen.learn_penalty()
    return LikeOdds(
        chooser.mean.astype(np.float32), chosen.mean.astype(np.float32), intercept, _by_profile(chooser, chosen)
    )


def _by_profile(chooser: _Side, chosen: _Side) -> ProfileOdds | None:
    if chooser.by_profile is None or chosen.by_profile is None:
        return None
    both = ContentMap.stacked(chooser.by_profile, chosen.by_profile)
    return ProfileOdds(both.weights, both.intercept, chooser.penalty.astype(np.float32))


@compiled
def _half_round(
    first: int, last: int, start: Ints, other: Places, liked: Bools, mean: Doubles, variance: Doubles, prior: Doubles,
    penalty: Doubles, theirs: Doubles, doubt: Doubles, intercept: float,
) -> None:  # fmt: skip
    """Solve the rows `first` to `last` of one role in place, with the other role's means and variances held fixed."""
    width = mean.shape[1]
    lean = width - 1
    z, unsure = np.ones(width), np.zeros(width)  # of the lean: a one that is sure
    left, right = np.empty((width, width)), np.empty(width)
    for i in range(first, last):
        left[:], right[:] = np.diag(penalty), penalty * prior[i]
        own, own_doubt = mean[i], variance[i]
        for at in range(start[i], start[i + 1]):
            j = other[at]
            for k in range(lean):
                z[k], unsure[k] = theirs[j, k], doubt[j, k]
            offset = theirs[j, lean] + intercept
            weight = _weight(own, own_doubt, z, unsure, offset, doubt[j, lean])
            _add(left, right, z, unsure, weight, (0.5 if liked[at] else -0.5) - weight * offset)
        inverse = np.linalg.inv(left)
        mean[i] = inverse @ right
        variance[i] = np.diag(inverse)


@compiled
def _weight(mean: Doubles, variance: Doubles, z: Doubles, unsure: Doubles, offset: float, doubt: float) -> float:
    """Return tanh(c / 2) / 2c with c^2 = E[logit^2]: how much one decision tells."""
    logit, spread = offset, doubt
    for k in range(len(z)):
        logit += mean[k] * z[k]
        spread += variance[k] * (z[k] * z[k] + unsure[k]) + mean[k] * mean[k] * unsure[k]
    c = np.sqrt(logit * logit + spread) + _TINY
    return float(np.tanh(c / 2) / (2 * c))


@compiled
def _add(left: Doubles, right: Doubles, z: Doubles, unsure: Doubles, weight: float, told: float) -> None:
    """Add `weight E[zz']` and `told z` to what a person's decisions add up to."""
    for k in range(len(z)):
        right[k] += told * z[k]
        scaled = weight * z[k]
        for m in range(len(z)):
            left[k, m] += scaled * z[m]
        left[k, k] += weight * unsure[k]
