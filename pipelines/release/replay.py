"""Replay requests through releases side by side: search the index, keep who may be shown, rank both directions.

It is the two stages without network, safety and cache: the same functions of the registry on the same requesters, one
release after the other for each of them, so that a busy machine slows all alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from feature_repo.transforms import content_inputs, mutually_eligible
from infra.clock import Clock
from pipelines.evaluation.methods import best_first
from pipelines.evaluation.scene import Positions, Scene
from pipelines.features.events import Events
from pipelines.metrics import gini
from pipelines.ranking.context import Factors
from registry.ranker import Order, combine
from registry.release import Release
from registry.retrieval import Factors as OwnFactors
from registry.retrieval import Origin, query_for, retrieve

if TYPE_CHECKING:
    from feature_repo.people import People

TOP = 10
_WIDER = 3  # as serving does: a quarter of a person's neighbours in the index may be shown to them
_WARM_UP = 3


@dataclass(frozen=True)
class Contender:
    """A release and the scene at the end of the data in which it answers."""

    release: Release
    scene: Scene


@dataclass(frozen=True)
class Replay:
    """Lists int64[n, 10] of positions, -1 where nobody is left, and seconds float64[m] of the timed requests."""

    shown: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64] = field(repr=False)


def factors_now(release: Release, people: "People", requesters: Positions, scene: Scene) -> tuple[Factors, Factors]:
    """Return everybody's factors at the end of the data, and the requesters' own, folded in from all their decisions.

    As in serving, candidates keep the factors of the fit while a requester's newest decisions count at once.
    """
    everybody = Factors.of(release.embedding, people.user_ids, lambda at: content_inputs(people.take(at), scene.at_s))
    decisions = scene.before.take(scene.before.is_decision)
    order = np.argsort(decisions.actor, kind="stable")
    edges = np.searchsorted(decisions.actor[order], [requesters, requesters + 1]).T
    own = [
        _own_factors(release, people.take([requester]), decisions.take(order[first:last]), scene.at_s)
        for requester, (first, last) in zip(requesters.tolist(), edges.tolist(), strict=True)
    ]
    width = release.embedding.dimensions
    chooser = np.array([factors.chooser for factors in own], dtype=np.float32).reshape(-1, width)
    chosen = np.array([factors.chosen for factors in own], dtype=np.float32).reshape(-1, width)
    return everybody, Factors(chooser, chosen)


def _own_factors(release: Release, requester: "People", decisions: Events, at_s: float) -> OwnFactors:
    targets = decisions.user_ids[decisions.target]
    liked = decisions.is_like
    inputs = content_inputs(requester, at_s)
    return query_for(release, int(requester.user_ids[0]), inputs, targets[liked], targets[~liked])


def contender(release: Release, scene: Scene, requesters: Positions) -> Contender:
    """Put a release into the scene at the end of the data, with the requesters' factors as of then."""
    everybody, own = factors_now(release, scene.people, requesters, scene)
    chooser, chosen = everybody.chooser.copy(), everybody.chosen.copy()
    chooser[requesters], chosen[requesters] = own.chooser, own.chosen
    return Contender(release, replace(scene, factors=Factors(chooser, chosen)))


def replay(contenders: Sequence[Contender], requesters: Positions, timed: int, clock: Clock) -> list[Replay]:
    """Answer every requester with each contender; the first `timed` are measured, after a few for warming up."""
    for one in contenders:
        for requester in requesters[:_WARM_UP].tolist():
            answer(one, requester)
    shown = [np.full((requesters.size, TOP), -1, dtype=np.int64) for _ in contenders]
    seconds = np.zeros((len(contenders), requesters.size))
    for row, requester in enumerate(requesters.tolist()):
        turn = list(enumerate(contenders))
        for number, one in turn if row % 2 == 0 else turn[::-1]:
            began = clock.monotonic()
            listed = answer(one, requester)
            seconds[number, row] = clock.monotonic() - began
            shown[number][row, : listed.size] = listed
    return [Replay(lists, took[:timed]) for lists, took in zip(shown, seconds, strict=True)]


def answer(contender: Contender, requester: int) -> Positions:
    """Return up to ten people for one requester, best first, int64[<= 10]."""
    release, scene = contender.release, contender.scene
    n, weight = scene.config.n_candidates, scene.config.weight
    factors = OwnFactors(scene.factors.chooser[requester], scene.factors.chosen[requester], Origin.FOLDED_IN)
    if not (np.any(factors.chooser) or np.any(factors.chosen)):
        return np.empty(0, dtype=np.int64)
    found = scene.people.positions(retrieve(release, factors, _WIDER * n, weight).ids)
    found = found[found >= 0]
    if scene.visible is not None:
        found = found[scene.visible[found]]
    found = found[~np.isin(found, scene.closed[requester])]
    asker = scene.people.take([requester])
    candidates = found[mutually_eligible(asker, scene.people.take(found), scene.at_s)][:n]
    if not candidates.size or release.ranker.order is Order.RETRIEVAL:
        return candidates[:TOP]
    score = combine(*scene.probabilities(requester, candidates), scene.config.aggregator)
    return best_first(candidates, score)[:TOP]


def shown_share(shown: npt.NDArray[np.int64], visible: npt.NDArray[np.bool_]) -> float:
    """Return how many different people the lists show, of as many as there are places (or people); NaN without any."""
    counts = _exposure(shown, visible)
    return float(np.count_nonzero(counts) / counts.size) if counts.size else float("nan")


def exposure_gini(shown: npt.NDArray[np.int64], visible: npt.NDArray[np.bool_]) -> float:
    """Return the Gini of how often people are shown, among as many as could have been: places, or all people if fewer.

    So a few lists from among a million people are not unequal for the mere reason that they are few.
    """
    return gini(_exposure(shown, visible))


def _exposure(shown: npt.NDArray[np.int64], visible: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return how often each person is shown, ascending, of the min(places, people) most shown."""
    places = shown[shown >= 0]
    counts = np.sort(np.bincount(places, minlength=visible.size)[visible])
    return np.asarray(counts[counts.size - min(counts.size, places.size) :], dtype=np.int64)
