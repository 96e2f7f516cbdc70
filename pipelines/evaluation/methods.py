"""The ways to order people that are compared: baselines, neighbours, two retrievals, and the full two stages.

Each takes one requester and the eligible undecided candidates and returns them best first. Ties fall by a seeded
shuffle of the candidates, so no method profits from the order of ids. A method that has nothing to go by on some data
is left out: its order would be chance under another name.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.layout import INTEREST_COLUMNS, PROFILE
from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import content_score
from pipelines.evaluation.baselines.popularity import decayed_popularity
from pipelines.evaluation.published import Scores, lfrr, recon
from pipelines.evaluation.scene import Positions, Scene
from pipelines.metrics import Numbers
from pipelines.ranking.requests import PastTaste
from pipelines.retrieval.config import NeighboursConfig
from registry.models.embedding import pair_scores
from registry.models.neighbours import POPULAR, Neighbours
from registry.release import Release
from registry.scoring.two_stages import find_candidates, recommend

Method = Callable[[Scene, int, Positions, np.random.Generator], Positions]

RANDOM, POPULARITY, CONTENT = "random", "popularity", "content"
RECENT_POPULARITY: Final = "recent_popularity"
RECON, LFRR = "recon", "lfrr"
ONE_SIDED, RECIPROCAL, TWO_STAGE = "one_sided", "reciprocal", "two_stage"
_DAY_US = 86_400_000_000


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


def by_two_stages(judged: Release, population: Population) -> Method:
    """Return the method that puts first whom a release would show, by the functions that serve; then stage 1."""

    def method(scene: Scene, requester: int, candidates: Positions, rng: np.random.Generator) -> Positions:
        asked = scene.requests.at(requester, scene.windows.t1_us + 1)
        others = PastTaste(scene.people, scene.requests.history, scene.windows.t1_us + 1)
        policy, n, at = judged.ranker.policy, scene.config.n_candidates, scene.at_s
        found = find_candidates(judged, population, asked, asked.terms(at), others, policy=policy, n=n, at=at, rng=rng)
        ids, _ = recommend(judged, policy, found)
        head = scene.people.positions(ids)
        head = head[np.isin(head, candidates)]
        first = by_both_tastes(scene, requester, candidates, rng)
        return np.concatenate([head, first[~np.isin(first, head)]])

    return method


def by_neighbours(neighbours: Neighbours, source: str) -> Method:
    """Return the method that puts first whom one neighbour score names; whom it says nothing about comes last."""

    def method(scene: Scene, requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
        asked = scene.requests.at(requester, scene.windows.t1_us + 1)
        rows = neighbours.positions(scene.people.user_ids[candidates])
        scores = neighbours.taste_of(asked.user_id, asked.liked).scores(rows)[source]
        return best_first(candidates, np.nan_to_num(scores, nan=-np.inf))

    return method


def by_scores(scores: Scores) -> Method:
    """Return the method that puts first whom a requester's scores of everybody name."""

    def method(_scene: Scene, requester: int, candidates: Positions, _rng: np.random.Generator) -> Positions:
        return best_first(candidates, scores(requester)[candidates])

    return method


def methods_of(scene: Scene) -> dict[str, Method]:
    """Return every method that has something to go by here, in the order of the table."""
    found: dict[str, Method] = {RANDOM: by_chance}
    if scene.likes_received.any():
        recent = recent_popularity(scene)
        found |= {POPULARITY: by_popularity, RECENT_POPULARITY: by_scores(lambda _requester: recent)}
    if tells_people_apart(scene.people):
        found[CONTENT] = by_content
    if (content := recon(scene.people, scene.before)) is not None:
        found[RECON] = by_scores(content)
    if (factors := lfrr(scene.people, scene.before, scene.config.seed)) is not None:
        found[LFRR] = by_scores(factors)
    if scene.judged is not None and scene.judged.neighbours is not None:
        neighbours = scene.judged.neighbours
        found |= {source: by_neighbours(neighbours, source) for source in neighbours.sources if source != POPULAR}
    if scene.factors.chooser.any():
        found |= {ONE_SIDED: by_own_taste, RECIPROCAL: by_both_tastes}
    if scene.judged is not None and scene.population is not None:
        found[TWO_STAGE] = by_two_stages(scene.judged, scene.population)
    return found


def recent_popularity(scene: Scene) -> npt.NDArray[np.float64]:
    """Return the likes everybody received up to T1, the latest weighing most, float64[n]."""
    likes = scene.before.take(scene.before.is_like)
    age_days = (scene.windows.t1_us - likes.at_us) / _DAY_US
    half_life = NeighboursConfig().popularity_half_life_days
    return decayed_popularity(likes.target, age_days, len(scene.people), half_life=half_life)


def tells_people_apart(people: People) -> bool:
    """Tell whether any two profiles differ in what content compares: interests, age, place, attributes."""
    compared = [PROFILE.index(name) for name in ("birth_day", "latitude", "longitude", *INTEREST_COLUMNS)]
    said = np.nan_to_num(np.concatenate([people.profile[:, compared], people.attributes], axis=1), nan=-1.0)
    return bool((said != said[:1]).any())


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
