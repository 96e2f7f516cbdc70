"""Finds people similar to somebody: chosen by the same people, as far as the factors of a release know.

Who is found is ordered by the cosine of the factors of those who are chosen, in which popularity has no say.
"""

from collections.abc import Callable

import numpy as np

from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import Terms, content_inputs
from registry.models.arrays import Floats
from registry.models.embedding import Embedding
from registry.scoring.candidates import RETRIEVAL, from_index, from_neighbours, from_population, pooled, share_of
from registry.scoring.first_stage import FirstStage
from registry.scoring.newcomers import Newcomers
from registry.scoring.pool import Pool
from registry.scoring.requester import Requester
from registry.scoring.retrieval import Factors, Origin, merge_candidates

ITEM_KNN = "item_knn"
_TINY = np.float32(1e-12)


def similar_candidates(
    stage: FirstStage,
    population: Population,
    requester: Requester,
    terms: Terms,
    anchor: People,
    *,
    n: int,
    at: float,
    rng: np.random.Generator,
    at_least: int = 0,
    late: Newcomers | None = None,
    may_widen: Callable[[], bool] = lambda: True,
) -> Pool:
    """Return at most `n` people who may be shown to the requester and may be similar to the one of `anchor`.

    They are sought in the index, among those whom the same people liked, and around the requester.
    """
    chosen = _chosen(stage.embedding, anchor, at)[0]
    # The index holds [Q ; P] of each person: with this query, its inner product is that of both Q.
    sought = Factors(chosen, np.zeros_like(chosen), Origin.FITTED)
    lists = {RETRIEVAL: from_index(stage, population, terms, sought, weight=1.0, n=n, late=late, may_widen=may_widen)}
    if stage.neighbours is not None:
        taste = stage.neighbours.taste_of(int(anchor.user_ids[0]), anchor.user_ids)
        lists |= {
            source: found
            for source, found in from_neighbours(taste, population, terms, share_of(n)).items()
            if source == ITEM_KNN
        }
    found = len(lists[RETRIEVAL])
    places = max(n - found, share_of(n))
    lists |= from_population(population, requester, terms, places, rng=rng, at=at, at_least=at_least - found)
    return pooled(population, merge_candidates(lists), n)


def similarity(embedding: Embedding, anchor: People, people: People, at: float) -> Floats:
    """Return float32[n] in -1..1: how similar `people` are to the one of `anchor`, by who chooses them."""
    one, others = _chosen(embedding, anchor, at)[0], _chosen(embedding, people, at)
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(one)
    return np.asarray(others @ one / np.maximum(lengths, _TINY), dtype=np.float32)


def _chosen(embedding: Embedding, people: People, at: float) -> Floats:
    return embedding.vectors(people.user_ids, content_inputs(people, at))[1]
