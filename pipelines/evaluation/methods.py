"""The six ways to order people that are compared: three baselines, two retrievals, and the full two stages.

Each takes one requester and the eligible undecided candidates and returns them best first. Ties fall by a seeded
shuffle of the candidates, so no method profits from the order of ids.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.transforms import content_score
from pipelines.evaluation.scene import Positions, Scene
from pipelines.metrics import Numbers
from registry.embedding import pair_scores
from registry.ranker import combine

Method = Callable[[Scene, int, Positions, np.random.Generator], Positions]

RANDOM, POPULARITY, CONTENT = "random", "popularity", "content"
ONE_SIDED, RECIPROCAL, TWO_STAGE = "one_sided", "reciprocal", "two_stage"


def by_chance(_scene: Scene, _requester: int, candidates: Positions, rng: np.random.Generator) -> Positions:
    """Shuffle."""
    return rng.permutation(candidates)


def by_popularity(scene: Scene, _requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
    """Put the most liked first."""
    return best_first(candidates, scene.likes_received[candidates])


def by_content(scene: Scene, requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
    """Put the closest profile first: what level 2 serves."""
    score = content_score(scene.people.take([requester]), scene.people.take(candidates), scene.at_s)
    return best_first(candidates, score)


def by_own_taste(scene: Scene, requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
    """Put first whom the requester would like, whatever they think."""
    return best_first(candidates, retrieval_scores(scene, requester, candidates, weight=1.0))


def by_both_tastes(scene: Scene, requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
    """Put first whom the requester would like and who would like the requester: stage 1."""
    return best_first(candidates, retrieval_scores(scene, requester, candidates, scene.config.weight))


def by_two_stages(scene: Scene, requester: int, candidates: Positions, rng: np.random.Generator) -> Positions:
    """Let the ranker reorder the head of stage 1; the tail keeps its order."""
    first = by_both_tastes(scene, requester, candidates, rng)
    head, tail = first[: scene.config.n_candidates], first[scene.config.n_candidates :]
    if scene.ranker is None or not head.size:
        return first
    score = combine(*scene.probabilities(requester, head), scene.config.aggregator)
    return np.concatenate([best_first(head, score), tail])


METHODS: Final[dict[str, Method]] = {
    RANDOM: by_chance,
    POPULARITY: by_popularity,
    CONTENT: by_content,
    ONE_SIDED: by_own_taste,
    RECIPROCAL: by_both_tastes,
    TWO_STAGE: by_two_stages,
}


def retrieval_scores(scene: Scene, requester: int, candidates: Positions, weight: float) -> npt.NDArray[np.float32]:
    """Return w * s(u->v) + (1 - w) * s(v->u), float32[n]."""
    factors = scene.factors
    forward, backward = pair_scores(
        factors.chooser[[requester]],
        factors.chosen[[requester]],
        factors.chooser[candidates],
        factors.chosen[candidates],
    )
    return np.asarray(weight * forward + (1.0 - weight) * backward, dtype=np.float32)


def best_first(candidates: Positions, score: Numbers) -> Positions:
    """Return the candidates by descending score, ties in the order given."""
    return candidates[np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")]
