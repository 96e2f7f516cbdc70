"""People whom a release's index does not know yet, or not as they are now: searched exactly, beside the index.

An index is as old as its last build. Whoever came since, and whoever is known by a profile that has changed since, has
a vector here; the answers of both searches become one list. Few enough that every one of them is compared.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from registry.errors import InvalidVectors
from registry.models.arrays import Floats, Ids
from registry.models.embedding import Embedding, item_vectors, query_vectors
from registry.models.item_index import ItemIndex
from registry.scoring.retrieval import CandidateList, Factors

Fingerprints = NDArray[np.uint64]
_NOBODY: Final = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Newcomers:
    """The people `user_ids` int64[m], ascending, with item vectors float32[m, 2d].

    `outdated` int64, ascending, are those among them whom the index knows otherwise: what it says of them is dropped.
    """

    user_ids: Ids
    vectors: Floats
    outdated: Ids = field(default_factory=lambda: _NOBODY)

    def __post_init__(self) -> None:
        m = len(self.user_ids)
        if self.vectors.ndim != 2 or len(self.vectors) != m:
            raise InvalidVectors(f"There are {m} newcomers for vectors of shape {self.vectors.shape}: they must align.")
        if not np.isfinite(self.vectors).all():
            raise InvalidVectors("The vector of a newcomer is not finite, so nobody could be compared with it.")
        if np.any(np.diff(self.user_ids) <= 0):
            raise InvalidVectors("The ids of newcomers must be strictly ascending.")

    def __len__(self) -> int:
        return len(self.user_ids)

    def search(self, query: Floats, n: int) -> CandidateList:
        """Return the `n` best of them for one query float32[2d], best first, by the exact inner product."""
        if self.vectors.shape[1] != len(query):
            raise InvalidVectors(f"The query has width {len(query)}, the newcomers {self.vectors.shape[1]}.")
        depth = min(n, len(self))
        if not depth:
            return CandidateList(self.user_ids[:0], np.empty(0, dtype=np.float32))
        faiss.omp_set_num_threads(1)
        scores, rows = faiss.knn(query[None], self.vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
        return CandidateList(self.user_ids[rows[0]], scores[0])


def with_newcomers(
    found: CandidateList, newcomers: Newcomers | None, factors: Factors, n: int, weight: float
) -> CandidateList:
    """Return the `n` best of what the index found and of the newcomers, as one list by score."""
    if newcomers is None or not len(newcomers):
        return found
    query = query_vectors(factors.chooser[None], factors.chosen[None], weight)[0]
    late = newcomers.search(query, n)
    ids, scores = found.ids, found.scores
    if len(newcomers.outdated):
        at = np.minimum(np.searchsorted(newcomers.outdated, ids), len(newcomers.outdated) - 1)
        kept = newcomers.outdated[at] != ids
        ids, scores = ids[kept], scores[kept]
    if len(scores) >= n and (not len(late) or late.scores[0] <= scores[n - 1]):
        return CandidateList(ids[:n], scores[:n])
    both = np.concatenate([scores, late.scores])
    # Stable: of equals, those of the index come first, as they did before the newcomer was there.
    order = np.argsort(-both, kind="stable")[:n]
    return CandidateList(np.concatenate([ids, late.ids])[order], both[order])


def standing(
    index: ItemIndex, user_ids: Ids, fingerprints: Callable[[Ids], Fingerprints]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say who is missing from the index, and whom it knows by an older profile: bool[n] each.

    `fingerprints` gives those of the profiles at some of n rows: asked only where a profile decides, which it does not
    for people with fitted factors. An index without fingerprints counts as right about everybody it holds.
    """
    at = index.positions(user_ids)
    missing = at < 0
    outdated = np.zeros(len(at), dtype=np.bool_)
    if index.fingerprints is not None and len(index):
        then = np.where(missing, np.uint64(0), index.fingerprints[at])
        rows = np.flatnonzero(then)
        outdated[rows] = then[rows] != fingerprints(rows)
    return missing, outdated


def newcomer_vectors(embedding: Embedding, user_ids: Ids, content_inputs: Floats, liked: Ids) -> Floats:
    """Return item vectors float32[m, 2d] of people: fitted factors, else those of the profile, P folded in from likes.

    `content_inputs` float32[m, c]; `liked` int64[m, w] are the ids of the latest likes, -1 where there are none.
    """
    chooser, chosen = embedding.vectors(user_ids, content_inputs)
    known = embedding.known(user_ids)
    for row in np.flatnonzero(~known & (embedding.positions(liked) >= 0).any(axis=1)):
        # As at request time: the first likes correct what the profile says, they do not replace it.
        chooser[row] = embedding.fold_in_chooser(liked[row], prior=chooser[row])
    return item_vectors(chooser, chosen)
