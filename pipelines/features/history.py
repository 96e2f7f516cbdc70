"""People as they were at any instant, held in memory: the reference for every point-in-time join.

Each person's vectors at an instant come from the latest snapshot at or before it; before the first one a person has
the layout's default row. Profiles and attributes are at every instant those that were given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.layout import ACTIVITY, RECIPROCITY
from feature_repo.population.people import People
from pipelines.features.aggregates import snapshots
from pipelines.features.events import Events

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PeopleHistory:
    """Snapshots of everybody in `people` (positions below are into its ids), one changed row after the other."""

    people: People
    instants_us: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    activity: Floats
    reciprocity: Floats

    @classmethod
    def build(cls, people: People, events: Events, instants: Sequence[pd.Timestamp]) -> Self:
        """Snapshot the events at the instants; people without events keep their default rows."""
        ordered = sorted(instants)
        keys = [np.empty(0, dtype=np.int64)]
        activity, reciprocity = [ACTIVITY.default_rows(0)], [RECIPROCITY.default_rows(0)]
        for number, snapshot in enumerate(snapshots(events, ordered)):
            at = people.positions(snapshot.user_ids)
            known = at >= 0
            keys.append(at[known] * len(ordered) + number)
            activity.append(snapshot.activity[known])
            reciprocity.append(snapshot.reciprocity[known])
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        instants_us = np.array([int(at.value) // 1_000 for at in ordered], dtype=np.int64)
        return cls(
            people, instants_us, joined[order], np.concatenate(activity)[order], np.concatenate(reciprocity)[order]
        )

    def rows(self, positions: npt.NDArray[np.int64], at_us: npt.NDArray[np.int64]) -> People:
        """Return people as of an instant each: row i is person `positions[i]` at `at_us[i]`."""
        number = np.searchsorted(self.instants_us, at_us, side="right") - 1
        wanted = positions * self.instants_us.size + number
        found = np.searchsorted(self.keys, wanted, side="right") - 1
        there = (number >= 0) & (found >= 0)
        there[there] = self.keys[found[there]] // self.instants_us.size == positions[there]
        n = positions.size
        activity, reciprocity = ACTIVITY.default_rows(n), RECIPROCITY.default_rows(n)
        activity[there] = self.activity[found[there]]
        reciprocity[there] = self.reciprocity[found[there]]
        return People(
            self.people.user_ids[positions],
            self.people.profile[positions],
            self.people.attributes[positions],
            activity,
            reciprocity,
        )

    def as_of(self, at_us: int) -> People:
        """Return everybody as of one instant."""
        n = len(self.people)
        return self.rows(np.arange(n, dtype=np.int64), np.full(n, at_us, dtype=np.int64))
