"""How far a distribution has moved from a reference: the population stability index, feature by feature.

By common reading below 0.1 nothing moved, above 0.25 much did. Equal distributions of n and m rows give about
`(bins - 1) * (1/n + 1/m)`, so a few hundred rows say little. A reference without rows is refused.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluation.errors import EmptyReference

BINS: Final = 10
_LEAST_SHARE: Final = 1e-4
"""Share that an empty bin is taken to have: the index stays finite, and one odd row moves nothing."""

Numbers = npt.NDArray[np.floating]


def psi(reference: Numbers, current: Numbers, bins: int = BINS) -> float:
    """Return the index of `current` against `reference`, both [rows]; 0 where `current` has no rows.

    Bins are quantiles of the reference, or its values where it has few; what is missing (NaN) is a bin of its own.

    Raises:
        EmptyReference: the reference has no rows.
    """
    if not reference.size:
        raise EmptyReference("There are no reference rows to measure drift against: train a ranker first.")
    if not current.size:
        return 0.0
    known = reference[~np.isnan(reference)]
    values = np.unique(known)
    if values.size <= bins:
        expected, found = _by_value(values, reference), _by_value(values, current)
    else:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))
        expected, found = _by_edge(edges, reference), _by_edge(edges, current)
    p, q = (np.maximum(counts / counts.sum(), _LEAST_SHARE) for counts in (expected, found))
    return float(np.sum((q - p) * np.log(q / p)))


def feature_psi(
    reference: npt.NDArray[np.float32], current: npt.NDArray[np.float32], names: Sequence[str], bins: int = BINS
) -> dict[str, float]:
    """Return the index of each column of float32[rows, k] by its name, the one that moved furthest first."""
    moved = {name: psi(reference[:, column], current[:, column], bins) for column, name in enumerate(names)}
    return dict(sorted(moved.items(), key=lambda item: (-item[1], item[0])))


def _by_value(values: Numbers, rows: Numbers) -> npt.NDArray[np.int64]:
    """Count each of the values, then everything else, then what is missing."""
    missing = np.isnan(rows)
    at = np.searchsorted(values, rows[~missing])
    seen = np.full(at.size, values.size)
    inside = at < values.size
    match = np.zeros(at.size, dtype=np.bool_)
    match[inside] = values[at[inside]] == rows[~missing][inside]
    seen[match] = at[match]
    return np.append(np.bincount(seen, minlength=values.size + 1), missing.sum())


def _by_edge(edges: Numbers, rows: Numbers) -> npt.NDArray[np.int64]:
    missing = np.isnan(rows)
    counts = np.bincount(np.searchsorted(edges, rows[~missing], side="right"), minlength=edges.size + 1)
    return np.append(counts, missing.sum())
