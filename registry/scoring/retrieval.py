"""Candidate generation from a release: one query, one search, and the merging of sources with their provenance.

Offline evaluation and serving call these same functions. Eligibility is not checked here: what comes out of any source
is filtered by the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import InvalidQuery, InvalidVectors
from registry.models.arrays import Floats, Ids
from registry.models.embedding import Embedding, query_vectors
from registry.models.item_index import ItemIndex
from registry.scoring.merging import bounded, merged

RETRIEVAL: Final = "retrieval"


class HasRetrieval(Protocol):
    """An embedding and the index built from it: a release, or the first stage alone."""

    @property
    def embedding(self) -> Embedding:
        """Return the factors."""

    @property
    def index(self) -> ItemIndex:
        """Return the index built from them."""


class Origin(StrEnum):
    """Where a requester's factors come from."""

    FITTED = "fitted"
    FOLDED_IN = "folded_in"
    CONTENT = "content"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Factors:
    """P and Q of one person, float32[d] each."""

    chooser: Floats
    chosen: Floats
    origin: Origin


@dataclass(frozen=True)
class CandidateList:
    """What one source found, best first: ids int64[n], scores float32[n], and for random sources the propensity."""

    ids: Ids
    scores: Floats
    propensity: Floats | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class MergedCandidates:
    """Everybody found by any source, once, in order of first appearance.

    `sources` names the columns; `ranks` int32[n, s] is the place (0 is best) in each source, -1 where it did not find
    the person; `scores` and `propensity` float32[n, s] are NaN there.
    """

    ids: Ids
    sources: tuple[str, ...]
    ranks: NDArray[np.int32]
    scores: Floats
    propensity: Floats

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def primary(self) -> NDArray[np.int64]:
        """Return the column of the first source that found each person, int64[n]."""
        return np.asarray((self.ranks >= 0).argmax(axis=1), dtype=np.int64)

    def found_by(self, rows: NDArray[np.int64]) -> list[tuple[str, ...]]:
        """Name the sources that found each of some candidates."""
        bits = (self.ranks[rows] >= 0) @ (1 << np.arange(len(self.sources)))
        return [_named(self.sources, mask) for mask in bits.tolist()]

    def best(self, n: int, share: int) -> "tuple[MergedCandidates, int]":
        """Return at most `n` of them, and how many places of the sources beside the first count, -1 for all.

        Where there are more, those sources together keep `share` each and what the first one leaves, the best places
        of each before the next ones: they are what keeps a pool from being more of the same. Of the first source the
        last go, unless another one found them too.
        """
        if len(self) <= n:
            return self, -1
        rows, places = bounded(self.ranks, n, share)
        return self.take(rows), places

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "MergedCandidates":
        """Keep some rows, in the given order."""
        return MergedCandidates(
            self.ids[rows], self.sources, self.ranks[rows], self.scores[rows], self.propensity[rows]
        )


@lru_cache(maxsize=1024)  # few sources, so few sets of them
def _named(sources: tuple[str, ...], mask: int) -> tuple[str, ...]:
    return tuple(source for bit, source in enumerate(sources) if mask >> bit & 1)


def query_for(
    release: HasRetrieval,
    user_id: int,
    content_inputs: Floats | None = None,
    liked_ids: ArrayLike = (),
    passed_ids: ArrayLike = (),
    *,
    liked_by_ids: ArrayLike = (),
    passed_by_ids: ArrayLike = (),
) -> Factors:
    """Return the requester's factors as of now.

    Decisions given here are *all* decisions of that side: a fold-in replaces the fitted factor, so what happened since
    training counts at once. A person outside the factorisation is folded in around the factor of their profile.
    """
    embedding = release.embedding
    known = bool(embedding.known([user_id])[0])
    chooser, chosen = (side[0] for side in embedding.vectors([user_id], content_inputs))
    prior_chooser, prior_chosen = _priors(embedding, content_inputs, known=known)
    decided = _any_known(embedding, liked_ids, passed_ids)
    judged = _any_known(embedding, liked_by_ids, passed_by_ids)
    if decided:
        chooser = embedding.fold_in_chooser(liked_ids, passed_ids, prior=prior_chooser)
    if judged:
        chosen = embedding.fold_in_chosen(liked_by_ids, passed_by_ids, prior=prior_chosen)
    if decided or judged:
        origin = Origin.FOLDED_IN
    elif known:
        origin = Origin.FITTED
    else:
        origin = Origin.CONTENT if content_inputs is not None else Origin.NOTHING
    return Factors(chooser, chosen, origin)


def _priors(
    embedding: Embedding, content_inputs: Floats | None, *, known: bool
) -> tuple[Floats, Floats] | tuple[None, None]:
    """Return what a fold-in is pulled to: the profile's factors, or zero where the fit of a known person did so."""
    if content_inputs is None or (known and not embedding.parameters.content_prior):
        return None, None
    chooser, chosen = embedding.content_factors(np.atleast_2d(content_inputs))
    return chooser[0], chosen[0]


def _any_known(embedding: Embedding, *sides: ArrayLike) -> bool:
    every = (np.asarray(side, dtype=np.int64).reshape(-1) for side in sides)
    return any(len(ids) > 0 and bool(embedding.known(ids).any()) for ids in every)


def retrieve(
    release: HasRetrieval, factors: Factors, n: int, weight: float = 0.5, exclude_ids: ArrayLike = ()
) -> CandidateList:
    """Return up to `n` people by `weight * s(u->v) + (1 - weight) * s(v->u)`, without the excluded.

    The search is widened by the number of the excluded, up to the index's own limit. Raises InvalidQuery if the
    factors are all zero, because every answer would be as good.
    """
    query = query_vectors(factors.chooser[None], factors.chosen[None], weight)[0]
    if not np.any(query):
        raise InvalidQuery("The requester has no factors at all, so the index cannot be asked.")
    excluded = np.asarray(exclude_ids, dtype=np.int64).reshape(-1)
    excluded = np.unique(excluded) if len(excluded) else excluded
    ids, scores = release.index.search(query, min(n + len(excluded), 10_000) if n >= 1 else n)
    if len(excluded):
        keep = ~np.isin(ids, excluded)
        ids, scores = ids[keep], scores[keep]
    return CandidateList(ids[:n], scores[:n])


def merge_candidates(lists: Mapping[str, CandidateList]) -> MergedCandidates:
    """Merge sources in the order of the mapping: everybody once, with rank, score and propensity per source."""
    sources = tuple(lists)
    for source, found in lists.items():
        if found.scores.shape != found.ids.shape:
            raise InvalidVectors(f"`{source}` found {found.ids.shape} people with {found.scores.shape} scores.")
    every = list(lists.values()) or [CandidateList(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))]
    ids, ranks, scores, propensity = merged(
        np.concatenate([np.asarray(found.ids, dtype=np.int64) for found in every]),
        np.array([len(found) for found in every], dtype=np.int64),
        np.concatenate([found.scores for found in every]),
        np.concatenate([np.full(len(f), np.nan, np.float32) if f.propensity is None else f.propensity for f in every]),
    )
    return MergedCandidates(ids, sources, ranks, scores, propensity)
