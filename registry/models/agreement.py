"""Whether an index holds the factors of an embedding: looked up in the index itself, because lineage can be mistaken.

A rebuild solves the factors of people with fresh decisions anew and leaves all others as they were fitted. So no more
factors may differ from the embedding's than the index says were solved anew; those may differ by any amount, because a
fit may be far from converged. Where nearly everybody decided since, few factors are left to compare: then what the
index finds must at least be what the embedding ranks far above chance.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from registry.models.arrays import Floats
from registry.models.embedding import Embedding, item_vectors
from registry.models.item_index import IndexKind, ItemIndex

_COMPARED: Final = 1_000
# How far a kept factor stands from what was put in, in lengths: floats 0, half floats 0.0003, bytes 0.02, products 0.2.
_SAME: Final = {IndexKind.IVF_SQ8: 0.05, IndexKind.IVF_PQ: 0.25}
_SAME_IN_FLOATS: Final = 0.005
_SPARE: Final = 0.02
_DEVIATIONS: Final = 4.0
# Refreshed factors gave 0.87 to 1.0 in worlds of 177 to 4,000 people and give 0.75 where two camps are all there is to
# know of anybody; rows of other people gave 0.36 to 0.59.
_LEAST_RANK: Final = 0.65
_FEW_LEFT: Final = 0.5
_SEED: Final = 7


def foreign_factors(embedding: Embedding, index: ItemIndex) -> str | None:
    """Return what says that the index was built from other factors than the embedding's, or None."""
    known = np.flatnonzero(embedding.known(index.user_ids))
    if not known.size:
        return None
    rng = np.random.default_rng(_SEED)
    compared = np.sort(rng.choice(known, size=min(_COMPARED, known.size), replace=False))
    differ = _share_that_differs(embedding, index, compared)
    refreshed = min(1.0, index.refreshed_factors / (2 * known.size))
    error = math.sqrt(refreshed * (1.0 - refreshed) / (2 * compared.size))
    if differ > refreshed + _SPARE + _DEVIATIONS * error:
        return f"{differ:.0%} of its factors are not the embedding's, and {refreshed:.0%} were refreshed"
    if refreshed < _FEW_LEFT:
        return None  # most factors were compared one by one, which says more than any rank
    rank = _rank_of_found(embedding, index, index.user_ids[compared])
    if rank is not None and rank < _LEAST_RANK:
        return (
            f"what it finds for its canary queries ranks at {rank:.0%} in the embedding, at random it would be at 50%"
        )
    return None


def _share_that_differs(embedding: Embedding, index: ItemIndex, positions: NDArray[np.int64]) -> float:
    chooser, chosen = embedding.vectors(index.user_ids[positions])
    held_chosen, held_chooser = np.hsplit(index.vectors(positions), 2)
    same = _SAME.get(index.kind, _SAME_IN_FLOATS)
    return float(np.mean([_differ(held_chooser, chooser, same), _differ(held_chosen, chosen, same)]))


def _differ(held: Floats, own: Floats, same: float) -> NDArray[np.bool_]:
    """Say which rows are further from their own than `same` lengths, of their own or the typical if that is longer."""
    lengths = np.linalg.norm(own, axis=1)
    typical = np.sqrt(np.mean(lengths**2))
    return np.asarray(np.linalg.norm(held - own, axis=1) > same * np.maximum(lengths, typical))


def _rank_of_found(embedding: Embedding, index: ItemIndex, others: NDArray[np.int64]) -> float | None:
    """Return the share of pairs of somebody found and somebody else in which the embedding prefers who was found."""
    if not index.canary_ids.size:
        return None
    ids, _ = index.search_many(index.canary_queries, index.canary_ids.shape[1])
    ranks = []
    anybody = item_vectors(*embedding.vectors(others))
    for query, found in zip(index.canary_queries, ids, strict=True):
        known = found[embedding.known(found)]
        if known.size:
            scores = item_vectors(*embedding.vectors(known)) @ query
            chance = np.sort(anybody @ query)
            below = np.searchsorted(chance, scores, "left") + np.searchsorted(chance, scores, "right")
            ranks.append(float(below.mean()) / (2 * len(chance)))
    return float(np.mean(ranks)) if ranks else None
