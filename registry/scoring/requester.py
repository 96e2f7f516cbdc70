"""What the two stages must know of the person who asks."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_repo.population.people import People
from registry.models.arrays import Floats, Ids
from registry.models.embedding import Embedding


class Requester(Protocol):
    """One person: `person` is one row of features, ids are int64; `liked` and `passed` are all decisions, newest first.

    `liked_by` are those whose likes the ranker may know of, `waiting` those among them who wait for an answer.
    """

    @property
    def user_id(self) -> int:
        """Return the id."""

    @property
    def person(self) -> People:
        """Return one row of features."""

    @property
    def liked(self) -> Ids:
        """Return whom they like."""

    @property
    def passed(self) -> Ids:
        """Return whom they passed on."""

    @property
    def liked_by(self) -> Ids:
        """Return who likes them, as far as the ranker may know."""

    @property
    def waiting(self) -> Ids:
        """Return who waits for their answer, as far as it may count."""


class TasteOfOthers(Protocol):
    """Each person's latest likes, to compare the requester with."""

    def similarity(self, embedding: Embedding, user_ids: Ids, chosen: Floats, last: int, *, to: int) -> Floats:
        """Return float32[n]: highest cosine of Q `chosen` of `to` to any Q each person liked, NaN without."""
        ...


def among(user_ids: Ids, some: Ids) -> Floats:
    """Return 1 for each of `user_ids` that is one of `some`, float32[n]."""
    if not len(some):
        return np.zeros(len(user_ids), dtype=np.float32)
    found: NDArray[np.bool_] = np.isin(user_ids, some)
    return found.astype(np.float32)
