"""The ways to order people that are compared: baselines, neighbours, two retrievals, and the full two stages.

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
from pipelines.ranking.requests import PastTaste
from registry.embedding import pair_scores
from registry.neighbours import EASE, ITEM_KNN, POPULAR, SPECTRAL, USER_KNN
from registry.scoring.two_stages import recommend

Method = Callable[[Scene, int, Positions, np.random.Generator], Positions]

RANDOM, POPULARITY, CONTENT = "random", "popularity", "content"
RECENT_POPULARITY: Final = "recent_popularity"
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
    """Put first whom the judged release would show, by the functions that serve; the rest follows stage 1."""
    first = by_both_tastes(scene, requester, candidates, rng)
    if scene.judged is None or scene.population is None:
        return first
    asked = scene.requests.at(requester, scene.windows.t1_us + 1)
    ids, _ = recommend(
        scene.judged,
        scene.population,
        asked,
        asked.terms(scene.at_s),
        PastTaste(scene.people, scene.requests.history, scene.windows.t1_us + 1),
        policy=scene.judged.ranker.policy,
        n=scene.config.n_candidates,
        at=scene.at_s,
        rng=rng,
    )
    head = scene.people.positions(ids)
    head = head[np.isin(head, candidates)]
    return np.concatenate([head, first[~np.isin(first, head)]])


def by_neighbours(source: str) -> Method:
    """Return the method that puts first whom one neighbour score names; whom it says nothing about comes last."""

    def method(scene: Scene, requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
        taste = scene.taste(requester)
        if taste is None:
            return candidates
        rows = taste.neighbours.positions(scene.people.user_ids[candidates])
        return best_first(candidates, np.nan_to_num(taste.scores(rows)[source], nan=-np.inf))

    return method


METHODS: Final[dict[str, Method]] = {
    RANDOM: by_chance,
    POPULARITY: by_popularity,
    RECENT_POPULARITY: by_neighbours(POPULAR),
    CONTENT: by_content,
    ITEM_KNN: by_neighbours(ITEM_KNN),
    USER_KNN: by_neighbours(USER_KNN),
    SPECTRAL: by_neighbours(SPECTRAL),
    EASE: by_neighbours(EASE),
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
