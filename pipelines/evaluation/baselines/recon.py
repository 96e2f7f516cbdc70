"""Content reciprocity after RECON (Pizzato, Rej, Chung, Koprinska, Kay: RecSys 2010).

What somebody prefers is the histogram of the attribute values of those they liked. How well another person suits them
is the mean share of that person's own values, over the attributes; both directions meet in their harmonic mean.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]


def attribute_values(
    codes: Mapping[str, npt.NDArray[np.integer]], sets: Sequence[sparse.csr_array] = ()
) -> tuple[sparse.csr_array, int]:
    """Return everybody's attribute values as columns, CSR float64[n, values], and how many attributes there are.

    Args:
        codes: per attribute int[n], the value's number from 0, -1 where the person leaves it out.
        sets: attributes with several values at once (interests), each CSR [n, values] of ones; a person's values share
            the weight one.

    """
    columns = [_one_hot(np.asarray(code)) for code in codes.values()]
    columns += [_rows_to_one(held.astype(np.float64)) for held in sets]
    return sparse.csr_array(sparse.hstack(columns, format="csr")), len(columns)


def quantile_codes(values: npt.NDArray[np.floating], n_bins: int) -> npt.NDArray[np.int64]:
    """Return the bin of each number among bins of equally many people, int64[n]; -1 for NaN."""
    known = np.isfinite(values)
    edges = np.unique(np.quantile(values[known], np.arange(1, n_bins) / n_bins)) if known.any() else np.zeros(0)
    return np.where(known, np.searchsorted(edges, values, side="right"), -1).astype(np.int64)


def preferences(likes: sparse.csr_array, values: sparse.csr_array) -> sparse.csr_array:
    """Return per person the share of each value among those they liked, CSR float64[n, values]; empty without likes."""
    return sparse.csr_array(_rows_to_one(likes.astype(np.float64)) @ values)


def reciprocal_compatibility(
    preferred: sparse.csr_array, values: sparse.csr_array, n_attributes: int, actor: int
) -> Floats:
    """Return the harmonic mean of both directions between one person and everybody, float64[n].

    As in the paper, where one of the two has liked nobody the other's direction stands alone; where neither has, zero.
    """
    forward = values @ preferred[[actor]].toarray().ravel() / n_attributes
    backward = preferred @ values[[actor]].toarray().ravel() / n_attributes
    likes_somebody = np.diff(preferred.indptr) > 0
    if not likes_somebody[actor]:
        return np.where(likes_somebody, backward, 0.0)
    both = np.zeros(len(forward))
    total = forward + backward
    np.divide(2 * forward * backward, total, out=both, where=total > 0)
    return np.where(likes_somebody, both, forward)


def _one_hot(code: npt.NDArray[np.integer]) -> sparse.csr_array:
    known = np.flatnonzero(code >= 0)
    shape = (len(code), int(code.max(initial=0)) + 1)
    return sparse.csr_array((np.ones(len(known)), (known, code[known])), shape=shape)


def _rows_to_one(matrix: sparse.csr_array) -> sparse.csr_array:
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ matrix)
