"""Replay requests through releases side by side, by the two stages that serve.

It is the two stages without network, safety and cache: the same functions of the registry on the same requesters, one
release after the other for each of them, so that a busy machine slows all alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.population.population import Population
from infra.clock import Clock
from pipelines.features.history import PeopleHistory
from pipelines.metrics import gini
from pipelines.ranking.requests import PastRequests, PastTaste
from pipelines.retrieval.stage import Ground
from registry.models.ranker import ListPolicy, Order
from registry.release import Release
from registry.scoring.ranking import served_policy
from registry.scoring.two_stages import find_candidates, recommend

if TYPE_CHECKING:
    from infra.settings import Settings
    from pipelines.results.inputs import DataSnapshot

Positions = npt.NDArray[np.int64]
TOP = 10
_WARM_UP = 3


@dataclass(frozen=True)
class Contender:
    """A release, the order in which it serves, and the people and events at the end of the data."""

    release: Release
    policy: ListPolicy
    population: Population
    requests: PastRequests
    n_candidates: int
    at_us: int


def contenders_at(
    releases: Sequence[Release], snapshot: "DataSnapshot", settings: "Settings", at_us: int
) -> list[Contender]:
    """Put releases before the people and events of a snapshot as they were just before an instant."""
    instants = [pd.Timestamp(at_us, unit="us", tz="UTC")]
    ground = Ground(snapshot, PeopleHistory.build(snapshot.people, snapshot.events, instants))
    population = ground.population_at(at_us)
    requests = PastRequests(ground.people_at(at_us), snapshot.events, settings.ranking.pending_likes)
    n = max(settings.serving.n_candidates, TOP)
    return [
        Contender(release, served_policy(release, settings), population, requests, n, at_us) for release in releases
    ]


@dataclass(frozen=True)
class Replay:
    """Lists int64[n, 10] of positions, -1 where nobody is left, and seconds float64[m] of the timed requests.

    `baselines` are the lists of simpler orders on the same candidates, by name.
    """

    shown: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64] = field(repr=False)
    baselines: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict, repr=False)


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


def answer(contender: Contender, requester: int, policy: ListPolicy | None = None) -> Positions:
    """Return up to ten people for one requester, best first, int64[<= 10], by the functions that serve."""
    asked = contender.requests.at(requester, contender.at_us)
    at_s = contender.at_us / 1e6
    policy = policy or contender.policy
    found = find_candidates(
        contender.release,
        contender.population,
        asked,
        asked.terms(at_s),
        PastTaste(contender.requests.people, contender.requests.history, contender.at_us),
        policy=policy,
        n=contender.n_candidates,
        at=at_s,
        rng=np.random.default_rng(requester),
    )
    ids, _ = recommend(contender.release, policy, found)
    return contender.requests.people.positions(ids[:TOP])


def baseline_lists(contender: Contender, requesters: Positions) -> dict[str, npt.NDArray[np.int64]]:
    """Return what simpler orders of the same release would show: what exposure is possible on these data."""
    weight = contender.policy.weight
    orders = {
        "one_sided": ListPolicy(Order.RETRIEVAL, weight=1.0),
        "item_knn": ListPolicy(Order.ITEM_KNN, weight=weight),
        "popularity": ListPolicy(Order.POPULAR, weight=weight),
    }
    if contender.release.neighbours is None:
        orders = {"one_sided": orders["one_sided"]}
    found = {name: np.full((requesters.size, TOP), -1, dtype=np.int64) for name in orders}
    for name, policy in orders.items():
        for row, requester in enumerate(requesters.tolist()):
            listed = answer(contender, requester, policy)
            found[name][row, : listed.size] = listed
    return found


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
