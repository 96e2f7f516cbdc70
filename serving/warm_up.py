"""Compiles every loop of the request path ahead of its first use: `python -m serving.warm_up`, and at each start.

Compiled code is kept on disk, so this takes seconds once and a moment later. Mapped pages are read-only, which to the
compiler is another type: everything is asked with both.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import VIEWS
from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import (
    PairContext,
    content_inputs,
    content_score,
    haversine_km,
    ranking_matrix,
)
from infra.compiled import fixed
from registry.models.embedding import Embedding, similarity_to_liked
from registry.models.like_odds import LikeOdds
from registry.models.neighbours import Neighbours
from registry.models.pairs import row_dot
from registry.models.ranker import MISSING
from registry.models.sparse_rows import SparseRows
from registry.models.trees import Trees
from registry.scoring.retrieval import CandidateList, merge_candidates

_PEOPLE = 3
_DIMENSIONS = 8


def warm_up() -> None:
    """Ask every compiled loop about a few people, in memory and as if on mapped pages."""
    in_memory = People.build(np.arange(1, _PEOPLE + 1), *(layout.default_rows(_PEOPLE) for layout in VIEWS))
    mapped = replace(in_memory, **{name: fixed(getattr(in_memory, name)) for name in _ARRAYS})
    requester = in_memory.take([0])
    context = PairContext.unknown(_PEOPLE)
    for people in (in_memory, mapped):
        content_score(requester, people, 0.0)
        content_inputs(people, 0.0)
        ranking_matrix(requester, people, context, 0.0)
    population = Population.build(mapped)
    population.sources(requester, 1, np.random.default_rng(0), 0.0)
    population.rows(population.positions(in_memory.user_ids))
    haversine_km(0.0, 0.0, np.zeros(1), np.zeros(1))
    _warm_up_models(in_memory.user_ids)


def _warm_up_models(user_ids: NDArray[np.int64]) -> None:
    factors = np.ones((_PEOPLE, _DIMENSIONS), dtype=np.float32)
    content_map = np.zeros((1, 2 * _DIMENSIONS), dtype=np.float32), np.zeros(2 * _DIMENSIONS, dtype=np.float32)
    embedding = Embedding(user_ids, factors, factors, *content_map)
    embedding.scores_with(factors[0], factors[0], embedding.positions(user_ids), np.empty((0, 1), np.float32))
    embedding.nearest_liked(np.zeros((1, 1), np.int64), factors[0], 1, 0)
    embedding.fold_in_chooser(user_ids)
    similarity_to_liked(factors, factors)
    row_dot(factors, factors)
    _warm_up_neighbours(user_ids)
    every = CandidateList(user_ids, factors[:, 0])
    merge_candidates({"retrieval": every, "random": every}).best(1, 1)
    stump = Trees(1, np.zeros((1, 1), np.uint32), factors[:1, :1], factors[:1, :2], np.float32(0.0))
    stump.predict(factors, np.arange(1), MISSING)


def _warm_up_neighbours(user_ids: NDArray[np.int64]) -> None:
    n = len(user_ids)
    everybody = SparseRows(np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int32), np.ones(n, dtype=np.float32))
    spectral, popularity = np.zeros((n, 1), dtype=np.float16), np.zeros(n, dtype=np.float32)
    factors = np.zeros((n, 2), dtype=np.float32)
    Neighbours(
        user_ids, everybody, everybody, everybody, everybody, everybody, spectral, popularity, smooth_weight=1.0,
        like_odds=LikeOdds(factors, factors, 0.0),
    ).warm()  # fmt: skip


_ARRAYS = ("user_ids", "profile", "attributes", "activity", "reciprocity")


if __name__ == "__main__":
    warm_up()
