"""The person who asks, and a pool of candidates in order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from feature_repo.population.people import People
from registry.scoring.pool import Pool
from serving.api.recommendation_models import Explanation
from serving.people.people_store import PendingLikes

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class KnownRequester:
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

    @property
    def liked_by(self) -> Int64:
        """Return who likes the requester, as far as the ranker may know."""
        return self.pending.liked_by

    @property
    def waiting(self) -> Int64:
        """Return whose like waits for the requester's answer, as far as it may count."""
        return self.pending.waiting


Explain = Callable[[Int64], list[Explanation]]


@dataclass(frozen=True)
class Ranked:
    """A pool in order: `order` int64[m] holds rows of the pool, best first; the columns are float32[n] by row.

    `propensity` is the probability that exploration or chance put the person where they are; `explored` bool[n] says
    whose place was given by exploration, None of nobody's.
    """

    pool: Pool
    order: Int64
    score: Float32
    propensity: Float32
    p_like: Float32 | None = None
    p_liked_back: Float32 | None = None
    explain: Explain | None = field(default=None, repr=False)
    explored: Bools | None = None


__all__ = ["Bools", "Explain", "Float32", "Int64", "KnownRequester", "Pool", "Ranked"]
