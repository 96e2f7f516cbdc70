"""Popularity with forgetting: likes received, each worth half after every half-life."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


def decayed_popularity(
    target: npt.NDArray[np.integer], age: npt.NDArray[np.floating], n_people: int, *, half_life: float
) -> Floats:
    """Return the likes each person received, discounted by age, float64[n people].

    Args:
        target: int[m], who received each like.
        age: float[m], how long ago, in the unit of the half-life; infinity counts nothing.
        n_people: number of people.
        half_life: after which a like counts half; infinity forgets nothing.

    """
    worth = np.exp2(-np.asarray(age, dtype=np.float64) / half_life)
    return np.bincount(target, weights=worth, minlength=n_people).astype(np.float64)
