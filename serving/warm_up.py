"""Compiles every loop of the request path ahead of its first use: `python -m serving.warm_up`, and at each start.

Compiled code is kept on disk, so this takes seconds once and a moment later. Mapped pages are read-only, which to the
compiler is another type: everything is asked with both.
"""

from dataclasses import replace

import numpy as np

from feature_repo.layout import VIEWS
from feature_repo.people import People
from feature_repo.population import Population
from feature_repo.transforms import (
    PairContext,
    content_inputs,
    content_score,
    haversine_km,
    mutually_eligible,
    ranking_matrix,
)
from serving.recent_likes import KEPT
from serving.taste import highest_cosines

_PEOPLE = 3
_DIMENSIONS = 8


def warm_up() -> None:
    """Ask every compiled loop about a few people, in memory and as if on mapped pages."""
    in_memory = People.build(np.arange(1, _PEOPLE + 1), *(layout.default_rows(_PEOPLE) for layout in VIEWS))
    mapped = replace(in_memory, **{name: _fixed(getattr(in_memory, name)) for name in _ARRAYS})
    requester = in_memory.take([0])
    context = PairContext.unknown(_PEOPLE)
    for people in (in_memory, mapped):
        population = Population.build(people)
        population.sources(requester, 1, np.random.default_rng(0), 0.0)
        mutually_eligible(requester, people, 0.0)
        content_score(requester, people, 0.0)
        content_inputs(people, 0.0)
        ranking_matrix(requester, people, context, 0.0)
    haversine_km(0.0, 0.0, np.zeros(1), np.zeros(1))
    factors, chosen = np.ones((_PEOPLE, _DIMENSIONS), np.float32), np.ones(_DIMENSIONS, np.float32)
    for liked in (np.zeros((1, KEPT), np.int64), np.zeros((1, KEPT), np.int32)):
        for rows in (factors, _fixed(factors)):
            highest_cosines(rows, np.zeros((1, KEPT), np.int64), liked, chosen, 1, 0)


_ARRAYS = ("user_ids", "profile", "attributes", "activity", "reciprocity")


def _fixed(array: np.ndarray) -> np.ndarray:
    same = array.view()
    same.flags.writeable = False
    return same


if __name__ == "__main__":
    warm_up()
