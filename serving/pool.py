"""Candidates on their way through the stages: who they are, which source found them, and their columns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.people import People
from registry.retrieval import MergedCandidates
from serving.api_models import Explanation
from serving.people_store import PendingLikes
from serving.reasons import Source

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Requester:
    """The person who asks: one row of features, and what Postgres said this instant; ids int64, sorted where unique.

    `version`, `updated_at` and `replicated` are those of `RequesterRow`.
    """

    user_id: int
    person: People
    excluded: Int64
    liked: Int64
    passed: Int64
    pending: PendingLikes = field(default_factory=PendingLikes.unknown)
    version: int = 0
    updated_at: datetime | None = None
    replicated: bool = False


@dataclass(frozen=True)
class Pool:
    """n candidates: `people` and `found` have n aligned rows."""

    people: People
    found: MergedCandidates

    def __len__(self) -> int:
        return len(self.people)

    def keep(self, rows: Int64 | Bools) -> Self:
        """Return the candidates at `rows`, in that order; a mask keeps the order."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return type(self)(self.people.take(at), self.found.take(at))

    def sources(self, rows: Int64) -> list[list[Source]]:
        """Name the sources that found each of some candidates."""
        return [list(_as_sources(names)) for names in self.found.found_by(rows)]


@lru_cache(maxsize=1024)
def _as_sources(names: tuple[str, ...]) -> tuple[Source, ...]:
    return tuple(map(Source, names))


Explain = Callable[[Int64], list[Explanation]]


@dataclass(frozen=True)
class Ranked:
    """A pool in order: `order` int64[m] holds rows of the pool, best first; the columns are float32[n] by row.

    `propensity` is the probability that exploration or chance put the person where they are.
    """

    pool: Pool
    order: Int64
    score: Float32
    propensity: Float32
    p_like: Float32 | None = None
    p_liked_back: Float32 | None = None
    explain: Explain | None = field(default=None, repr=False)
