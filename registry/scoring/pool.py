"""Candidates on their way through the stages: who they are, which source found them, and their columns."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.population.people import People
from registry.models.arrays import Ids
from registry.scoring.retrieval import MergedCandidates


@dataclass(frozen=True)
class Pool:
    """n candidates: `people` and `found` have n aligned rows."""

    people: People
    found: MergedCandidates

    def __len__(self) -> int:
        return len(self.people)

    def keep(self, rows: Ids | NDArray[np.bool_]) -> Self:
        """Return the candidates at `rows`, in that order; a mask keeps the order."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return type(self)(self.people.take(at), self.found.take(at))
