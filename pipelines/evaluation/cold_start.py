"""How the list of a newcomer gets better swipe by swipe: the cold-start curve.

People with a past are asked as if they were new: with their profile and their first n decisions alone, under an id
that the release does not know. Their likes after T1 are what is to be found, from the same candidates at every n, so
that the points of the curve differ by nothing but n. The release itself has learned the decisions that it is not told
of, which moves the factors of others a little, at every n alike.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.transforms import mutually_eligible
from pipelines import metrics
from pipelines.evaluation import oracle
from pipelines.evaluation.scene import Floats, Positions, Scene
from pipelines.features.events import Events
from pipelines.ranking.requests import PastRequester, PastTaste
from pipelines.retrieval.dataset import first_decisions
from registry.models.embedding import Embedding
from registry.release import Release
from registry.scoring.two_stages import find_candidates, recommend

STEPS: Final = (0, 1, 2, 3, 5, 10, 20)
"""Swipes that the list may know of."""
COLUMNS = ("swipes", "measure", "mean", "low", "high", "people", "gain", "gain_low", "gain_high")
"""`gain` is the mean less that without a swipe over the same people, NaN at 0 swipes."""
FEWEST: Final = 10
"""With fewer people who have decided so often, a point of the curve says nothing."""
WIDE, TOP = 20, 10
_UNKNOWN: Final = -1
_NOTHING = float("nan")


def cold_start_curve(scene: Scene, truth: oracle.LikeProbability | None = None) -> pd.DataFrame:
    """Return NDCG@20 and match precision@10 after each of the first swipes, with COLUMNS; empty where unmeasurable.

    `truth` adds the expected share of matches among the first ten.
    """
    decided = first_decisions(scene.before)
    asked, steps = _newcomers(scene, decided)
    if scene.judged is None or scene.population is None or not steps:
        return pd.DataFrame(columns=list(COLUMNS))
    found: dict[str, list[npt.NDArray[np.float64]]] = {"ndcg_at_20": [], "match_precision_at_10": []}
    if truth is not None:
        found["true_match_precision_at_10"] = []
    pretended = [_Newcomer.of(scene, decided, requester) for requester in asked.tolist()]
    for n in steps:
        shown = [one.listed(scene, scene.judged, scene.population, n) for one in pretended]
        hits = np.stack([_among(one.likes, listed) for one, listed in zip(pretended, shown, strict=True)])
        matched = np.stack([_among(one.matches, listed) for one, listed in zip(pretended, shown, strict=True)])
        relevant = np.array([one.likes.size for one in pretended], dtype=np.int64)
        found["ndcg_at_20"].append(metrics.ndcg_at(hits, relevant, WIDE))
        found["match_precision_at_10"].append(metrics.precision_at(matched, TOP))
        if truth is not None:
            expected = oracle.expected_matches(asked, np.stack(shown)[:, :TOP], scene.people.user_ids, truth)
            found["true_match_precision_at_10"].append(expected / TOP)
    rounds, seed = scene.config.bootstrap_rounds, scene.config.seed
    rows: list[tuple[object, ...]] = []
    for measure, values in found.items():
        for n, value in zip(steps, values, strict=True):
            own = metrics.bootstrap_interval(value, rounds, seed)
            gain = metrics.difference_interval(value, values[0], rounds, seed)
            apart = (gain.mean, gain.low, gain.high) if n else (_NOTHING, _NOTHING, _NOTHING)
            rows.append((n, measure, own.mean, own.low, own.high, own.n, *apart))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _newcomers(scene: Scene, decisions: Events) -> tuple[Positions, tuple[int, ...]]:
    """Return people who like somebody after T1, and the steps for which they have decided often enough before."""
    held_out = scene.held_out
    liking = np.unique(held_out.actor[held_out.is_like]).astype(np.int64)
    decided = np.bincount(decisions.actor, minlength=decisions.n_people)[liking]
    for deepest in range(len(STEPS), 1, -1):
        able = liking[decided >= STEPS[deepest - 1]]
        if able.size >= FEWEST:
            most = scene.config.cold_start_people
            rng = np.random.default_rng([scene.config.seed, deepest])
            chosen = able if able.size <= most else np.sort(rng.choice(able, most, replace=False))
            return chosen, STEPS[:deepest] if most else ()
    return liking[:0], ()


@dataclass(frozen=True)
class _Newcomer:
    """Somebody asked as if new: their profile, their decisions in order, and the likes and matches to find."""

    requester: PastRequester
    own: Events
    likes: Positions
    matches: Positions

    @classmethod
    def of(cls, scene: Scene, decided: Events, position: int) -> "_Newcomer":
        past = scene.requests.at(position, scene.windows.t1_us + 1)
        person, mine = past.person, np.flatnonzero(scene.held_out.actor == position)
        target, at = scene.held_out.target[mine].astype(np.int64), scene.at_s
        open_ = mutually_eligible(person, scene.people.take(target), at)
        if scene.visible is not None:
            open_ &= scene.visible[target]
        # What they do and how they are received is told by decisions that a newcomer has not made.
        stranger = People.build(person.user_ids, profile=person.profile, attributes=person.attributes)
        return cls(
            PastRequester(_UNKNOWN, stranger, past.liked[:0], past.passed[:0], past.excluded),
            decided.take(decided.actor == position),
            target[open_ & scene.held_out.is_like[mine]],
            target[open_ & scene.held_out_matched[mine]],
        )

    def listed(self, scene: Scene, judged: Release, population: Population, n: int) -> Positions:
        """Return the first people shown after `n` decisions, int64[WIDE] of positions, -1 beyond the end."""
        known = self.own.take(slice(0, n))
        ids = scene.people.user_ids[known.target][::-1]
        liked = known.is_like[::-1]
        asked = replace(self.requester, liked=ids[liked], passed=ids[~liked])
        own = int(asked.person.user_ids[0])
        others = _WithoutOwn(PastTaste(scene.people, scene.requests.history, scene.windows.t1_us + 1), own)
        policy, at, rng = judged.ranker.policy, scene.at_s, np.random.default_rng([scene.config.seed, own])
        candidates = find_candidates(
            judged, population, asked, asked.terms(at), others,
            policy=policy, n=scene.config.n_candidates, at=at, rng=rng,
        )  # fmt: skip
        found, _ = recommend(judged, policy, candidates)
        listed = np.full(WIDE, -1, dtype=np.int64)
        listed[: len(found[:WIDE])] = scene.people.positions(found[:WIDE])
        return listed


@dataclass(frozen=True)
class _WithoutOwn:
    """The taste of others without their likes of the one who is asked under another id."""

    others: PastTaste
    own: int

    def similarity(
        self, embedding: Embedding, user_ids: npt.NDArray[np.int64], chosen: Floats, last: int, *, to: int
    ) -> Floats:
        """Return what the others' taste says, whoever it is told that it is compared with."""
        del to
        return self.others.similarity(embedding, user_ids, chosen, last, to=self.own)


def _among(wanted: Positions, listed: Positions) -> npt.NDArray[np.bool_]:
    return np.isin(listed, wanted) & (listed >= 0)
