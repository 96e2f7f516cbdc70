"""Slices of people and of candidates: for whom a method is good, and whom it finds.

A slice is a group number per person (int64[n], -1 = in none) with names, so that any measure over people can be read
within it. Candidates are sliced by how popular they are: a method may be good only because it finds the popular.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.metrics.arrays import Floats, Ints, Numbers
from pipelines.metrics.intervals import Interval, bootstrap_interval

_SWIPES = (0, 1, 3, 10)


@dataclass(frozen=True)
class Slices:
    """Group numbers int64[n] into `names`; -1 = in none."""

    groups: Ints
    names: tuple[str, ...]

    def intervals(self, values: Floats, rounds: int, seed: int) -> dict[str, Interval]:
        """Return the mean and interval of a measure float64[n] within each slice, in the order of names."""
        return {
            name: bootstrap_interval(values[self.groups == number], rounds, seed)
            for number, name in enumerate(self.names)
        }


def by_swipes(n_decisions: Ints) -> Slices:
    """Slice newcomers by the decisions they had made: 0, 1, up to 3, up to 10, more."""
    groups = np.searchsorted(np.array(_SWIPES), n_decisions, side="left").astype(np.int64)
    return Slices(groups, ("0 swipes", "1 swipe", "2 to 3 swipes", "4 to 10 swipes", "over 10 swipes"))


def by_activity(n_decisions: Ints) -> Slices:
    """Slice by terciles of activity; who is equally active is in one slice, so that slices may differ in size."""
    return Slices(quantile_groups(n_decisions, 3), ("least active", "medium active", "most active"))


def by_label(labels: Sequence[str | None]) -> Slices:
    """Slice by a label such as the gender, names in alphabetical order; who has none is in no slice."""
    names = tuple(sorted({label for label in labels if label is not None}))
    number = {name: at for at, name in enumerate(names)}
    return Slices(np.array([-1 if label is None else number[label] for label in labels], dtype=np.int64), names)


def quantile_groups(values: Numbers, n_groups: int) -> Ints:
    """Return the quantile of each value, int64[n] from 0; equal values share the group of their middle rank."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2.0) / max(len(inverse), 1)
    return np.minimum((middle * n_groups).astype(np.int64), n_groups - 1)[inverse]


def recall_by_group(relevant: Ints, found: Numbers, groups: Ints, n_groups: int) -> Floats:
    """Return the share of relevant pairs that were found, per group of the candidate, float64[n_groups].

    Args:
        relevant: int64[p], the candidate of each relevant pair of all requesters.
        found: bool[p], whether the pair was within the first k.
        groups: int64[n people], such as `quantile_groups(likes_received, 10)`.
        n_groups: number of groups; one without a relevant pair yields NaN.

    """
    group = groups[relevant]
    total = np.bincount(group, minlength=n_groups)
    share = np.full(n_groups, np.nan)
    np.divide(np.bincount(group, weights=found, minlength=n_groups), total, out=share, where=total > 0)
    return share
