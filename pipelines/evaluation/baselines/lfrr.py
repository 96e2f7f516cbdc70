"""Reciprocal recommendation by two latent factor models, after LFRR (Neve, Palomares: RecSys 2019).

One model learns what the first side likes in the second, the other what the second side likes in the first; a pair's
two scores meet in an aggregation. The paper's models are fitted on ratings by gradient descent; likes without ratings
ask for the implicit-feedback one (Hu, Koren, Volinsky 2008), which is used here.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Aggregation = Literal["arithmetic", "geometric", "harmonic", "uninorm"]
_LEAST, _MOST = 1e-3, 1.0 - 1e-3


@dataclass(frozen=True)
class SideModels:
    """Factors float32[2, n, d]: `chooser[s]` and `chosen[s]` of the model of what side `s` likes; `side` int64[n]."""

    chooser: npt.NDArray[np.float32]
    chosen: npt.NDArray[np.float32]
    side: Positions

    def liking(self, actor: int) -> Floats:
        """Return how much one person would like everybody, float64[n], within (0, 1)."""
        side = self.side[actor]
        return _bounded(self.chosen[side] @ self.chooser[side, actor])

    def liked(self, target: int) -> Floats:
        """Return how much everybody would like one person, each by the model of their side, float64[n]."""
        by_side = self._own @ self.chosen[:, target].T
        return _bounded(by_side[np.arange(len(self.side)), self.side])

    def scores(self, actor: int, how: Aggregation = "harmonic") -> Floats:
        """Return the aggregated scores of one person and everybody, float64[n]; a pair's is the same from either."""
        return aggregate(self.liking(actor), self.liked(actor), how)

    @cached_property
    def _own(self) -> npt.NDArray[np.float32]:
        """Return everybody's factors as a chooser in the model of their own side, float32[n, d]."""
        return self.chooser[self.side, np.arange(len(self.side))]


def _bounded(score: npt.NDArray[np.float32]) -> Floats:
    return np.clip(score.astype(np.float64), _LEAST, _MOST)


def fit_side_models(
    likes: sparse.csr_array,
    side: npt.NDArray[np.bool_],
    *,
    dimensions: int = 32,
    alpha: float = 20.0,
    regularization: float = 30.0,
    iterations: int = 15,
    seed: int = 0,
) -> SideModels:
    """Fit the model of each side on the likes of that side's people; same inputs, same factors."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n_people = likes.shape[0]
    chooser = np.zeros((2, n_people, dimensions), dtype=np.float32)
    chosen = np.zeros_like(chooser)
    for number, of_side in enumerate((~side, side)):
        own = sparse.csr_matrix(sparse.diags_array(of_side.astype(np.float32)) @ likes, dtype=np.float32)
        own.eliminate_zeros()
        if not own.nnz:
            continue
        with threadpool_limits(limits=1, user_api="blas"):
            model = AlternatingLeastSquares(
                factors=dimensions,
                alpha=alpha,
                regularization=regularization,
                iterations=iterations,
                random_state=seed,
            )
            model.fit(own, show_progress=False)
        chooser[number], chosen[number] = model.user_factors, model.item_factors
    return SideModels(chooser, chosen, side.astype(np.int64))


def aggregate(forward: Floats, backward: Floats, how: Aggregation) -> Floats:
    """Return one score from the two directions in (0, 1): the operators that the paper compares, float64[p].

    The uninorm is the cross-ratio: it rises above both where both are above one half, and falls below both where
    both are under it.
    """
    if how == "arithmetic":
        return (forward + backward) / 2
    if how == "geometric":
        return np.sqrt(forward * backward)
    if how == "harmonic":
        return 2 * forward * backward / (forward + backward)
    both = forward * backward
    return both / (both + (1 - forward) * (1 - backward))
