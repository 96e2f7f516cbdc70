"""Two fair ways to ask "who should be shown to whom" on the held-out window.

`catalogue` ranks everybody eligible and undecided: right where people could have met anybody. `met` ranks only the
people whose decision is known: right where the evening chose the candidates, as in speed dating.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_repo.transforms import mutually_eligible
from pipelines.evaluation.errors import NobodyToAsk
from pipelines.evaluation.methods import Method, methods_of
from pipelines.evaluation.scene import Positions, Scene
from pipelines.metrics import Numbers

DEPTH = 500
"""Places of a list that are kept: the deepest measure is Recall@500."""


@dataclass(frozen=True)
class Rankings:
    """One method's lists: requesters int64[n], shown int64[n, depth] (-1 beyond the end), hits and matches alike.

    `relevant` int64[n] counts the liked candidates of each requester, `to_match` int64[n] those who became a match,
    `sizes` int64[n] all candidates.
    """

    requesters: Positions
    shown: npt.NDArray[np.int64]
    liked: npt.NDArray[np.bool_]
    matched: npt.NDArray[np.bool_]
    relevant: npt.NDArray[np.int64]
    to_match: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ProtocolResult:
    """Lists per method, the candidates each requester had, and who could have been shown at all."""

    protocol: str
    rankings: dict[str, Rankings]
    candidates: list[Positions] = field(repr=False)
    reachable: Positions = field(repr=False)


def catalogue(scene: Scene, methods: Mapping[str, Method] | None = None, depth: int = DEPTH) -> ProtocolResult:
    """Rank all visible, mutually eligible, undecided people for a sample of those who like somebody after T1.

    Without `methods`, by all that have something to go by.

    Raises:
        NobodyToAsk: nobody likes an eligible undecided person in the held-out window.

    """
    held_out = scene.held_out
    asked = np.unique(held_out.actor[held_out.is_like]).astype(np.int64)
    rng = np.random.default_rng(scene.config.seed)
    if asked.size > scene.config.max_people:
        asked = np.sort(rng.choice(asked, size=scene.config.max_people, replace=False))
    everybody = np.arange(len(scene.people), dtype=np.int64)
    if scene.visible is not None:
        everybody = everybody[scene.visible]
    pool = scene.people.take(everybody)
    requesters, candidates = [], []
    for requester in asked.tolist():
        open_ = mutually_eligible(scene.people.take([requester]), pool, scene.at_s)
        open_ &= ~np.isin(everybody, scene.closed[requester])
        if open_.any():
            requesters.append(requester)
            candidates.append(everybody[open_])
    asked_for = np.array(requesters, dtype=np.int64), candidates
    return _rank(scene, "catalogue", asked_for, methods_of(scene) if methods is None else methods, depth)


def met(scene: Scene, scored: Mapping[str, Numbers], depth: int = DEPTH) -> ProtocolResult:
    """Rank, for each requester, the people decided on after T1, by scores aligned with `scene.held_out`.

    Scores must come from features at each meeting's own instant. Raises NobodyToAsk if nobody decided on two people.
    """
    held_out = scene.held_out
    rng = np.random.default_rng(scene.config.seed)
    shuffled = rng.permutation(len(held_out))  # ties fall by chance, not by the order of the evening
    by_requester = shuffled[np.argsort(held_out.actor[shuffled], kind="stable")]
    people, start, count = np.unique(held_out.actor[by_requester], return_index=True, return_counts=True)
    lists = [by_requester[s : s + c] for s, c in zip(start, count, strict=True) if c >= 2]
    requesters = people[count >= 2].astype(np.int64)
    if not lists:
        raise NobodyToAsk(
            "Nobody decided on two people in the held-out window: take the protocol `catalogue`, which needs one like."
        )
    rankings = {}
    for name, score in scored.items():
        ordered = [rows[np.argsort(-np.asarray(score, dtype=np.float64)[rows], kind="stable")] for rows in lists]
        rankings[name] = _met_rankings(scene, requesters, ordered, depth)
    candidates = [held_out.target[rows].astype(np.int64) for rows in lists]
    return ProtocolResult("met", rankings, candidates, np.unique(np.concatenate(candidates)))


def _met_rankings(scene: Scene, requesters: Positions, ordered: list[npt.NDArray[np.intp]], depth: int) -> Rankings:
    held_out = scene.held_out
    width = min(depth, max(rows.size for rows in ordered))
    shown = np.full((len(ordered), width), -1, dtype=np.int64)
    liked, matched = np.zeros(shown.shape, np.bool_), np.zeros(shown.shape, np.bool_)
    for at, rows in enumerate(ordered):
        head = rows[:width]
        shown[at, : head.size] = held_out.target[head]
        liked[at, : head.size] = held_out.is_like[head]
        matched[at, : head.size] = scene.held_out_matched[head]
    relevant = np.array([int(held_out.is_like[rows].sum()) for rows in ordered], dtype=np.int64)
    to_match = np.array([int(scene.held_out_matched[rows].sum()) for rows in ordered], dtype=np.int64)
    sizes = np.array([rows.size for rows in ordered], dtype=np.int64)
    return Rankings(requesters, shown, liked, matched, relevant, to_match, sizes)


def _rank(
    scene: Scene,
    protocol: str,
    asked: tuple[Positions, list[Positions]],
    methods: Mapping[str, Method],
    depth: int,
) -> ProtocolResult:
    requesters, candidates = asked
    if not requesters.size:
        raise NobodyToAsk("Nobody who likes somebody in the held-out window has an eligible candidate left.")
    n, width = requesters.size, min(depth, max(c.size for c in candidates))
    shown = {name: np.full((n, width), -1, dtype=np.int64) for name in methods}
    liked = {name: np.zeros((n, width), dtype=np.bool_) for name in methods}
    matched = {name: np.zeros((n, width), dtype=np.bool_) for name in methods}
    relevant, to_match = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    held_out, mutual = scene.held_out, scene.held_out_matched
    order = np.argsort(held_out.actor, kind="stable")
    actors = held_out.actor[order]
    likes_mask = np.zeros(len(scene.people), dtype=np.bool_)
    match_mask = np.zeros_like(likes_mask)
    for row, requester in enumerate(requesters.tolist()):
        first, last = np.searchsorted(actors, [requester, requester + 1])
        own = order[first:last]
        targets = held_out.target[own]
        likes_mask[targets], match_mask[targets] = held_out.is_like[own], mutual[own]
        relevant[row] = likes_mask[candidates[row]].sum()
        to_match[row] = match_mask[candidates[row]].sum()
        for number, (name, method) in enumerate(methods.items()):
            rng = np.random.default_rng([scene.config.seed, requester, number])
            best = method(scene, requester, rng.permutation(candidates[row]), rng)[:width]
            shown[name][row, : best.size] = best
            liked[name][row, : best.size] = likes_mask[best]
            matched[name][row, : best.size] = match_mask[best]
        likes_mask[targets] = match_mask[targets] = False
    sizes = np.array([c.size for c in candidates], dtype=np.int64)
    rankings = {
        name: Rankings(requesters, shown[name], liked[name], matched[name], relevant, to_match, sizes)
        for name in methods
    }
    return ProtocolResult(protocol, rankings, candidates, np.unique(np.concatenate(candidates)))
