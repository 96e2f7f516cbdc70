"""Judge orders by the lists they give on decisions that nobody has learned from.

All orders are asked by the same requesters at the same instant, each for the list that it would serve, from candidates
of its own where the first stage gives it others. A list is good when it holds whom the requester liked afterwards, and
on two-sided data also who liked them back: both are measured, each against the best order in it. Where people met by
chance, nobody decided on most of whom a list holds, so how well an order tells those liked from those passed on counts
as much as the list.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from feature_repo.population.population import Population
from pipelines.features.events import Events
from pipelines.ranking.merit import TOP, merit_of, ndcg, told_apart
from pipelines.ranking.requests import PastRequests, PastTaste
from pipelines.ranking.sessions import Requests
from registry.models.ranker import Aggregator, ForwardModel, ListPolicy, Order, Ranker
from registry.scoring.first_stage import FirstStage
from registry.scoring.ranking import CERTAIN, Scored, scored_by
from registry.scoring.two_stages import (
    Asked,
    Candidates,
    candidates_among,
    find_candidates,
    listed_by_first_stage,
    sought_by,
)

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
MATCH_TOP = 10
_MIN_MATCHED = 30
_MIN_MATCH_SHARE = 0.03
ONE_SIDED_WEIGHT, TWO_SIDED_WEIGHT = 1.0, 0.5


@dataclass(frozen=True)
class HeldOutLists:
    """The ground on which lists are judged: a stage fitted up to an instant, and first decisions after it.

    `matched` bool[m] says which of `decided` are likes that were returned, `has_history` bool[n_people] who had decided
    on somebody before. Only requests after `after_us` are judged. `by_chance` says that people met by chance.
    """

    stage: FirstStage
    population: Population
    requests: PastRequests
    decided: Events
    matched: Bools
    has_history: Bools
    after_us: int = 0
    by_chance: bool = False


@dataclass(frozen=True)
class JudgedLists:
    """Per policy, by request: NDCG of likes, NDCG of matches and match precision, float64[n] each, at `at_us`.

    `told_apart` and `matches_told_apart` are the AUC of likes against passes, and of matches against everybody else who
    was decided on, less 1/2; NaN where one of both is missing, and everywhere unless people met by chance.
    """

    policies: tuple[ListPolicy, ...]
    likes: npt.NDArray[np.float64] = field(repr=False)
    matches: npt.NDArray[np.float64] = field(repr=False)
    match_precision: npt.NDArray[np.float64] = field(repr=False)
    told_apart: npt.NDArray[np.float64] = field(repr=False)
    matches_told_apart: npt.NDArray[np.float64] = field(repr=False)
    at_us: Ids = field(repr=False)
    has_matches: bool

    @property
    def requesters(self) -> int:
        """Return how many people's lists were judged."""
        return int(self.likes.shape[1])

    def merits(self) -> npt.NDArray[np.float64]:
        """Return the merit of each policy's list by request, float64[policies, n].

        NDCG of likes as a share of the best policy's mean; where people met by chance, half of it is how well likes are
        told from passes. On two-sided data the same of matches is added.
        """
        return np.asarray(merit_of(self.likes, self.told_apart) + self.match_merits())

    def match_merits(self) -> npt.NDArray[np.float64]:
        """Return the part of the merit that matches have, float64[policies, n]; zeros on one-sided data."""
        if not self.has_matches:
            return np.zeros_like(self.matches)
        return merit_of(self.matches, self.matches_told_apart)

    def utility(self) -> npt.NDArray[np.float64]:
        """Return the mean merit of each policy, float64[policies]."""
        return self.merits().mean(axis=1) if self.requesters else np.zeros(len(self.policies))


def policies(ranker: Ranker, *, aggregator: str, sources: tuple[str, ...]) -> tuple[ListPolicy, ...]:
    """Return the orders to compare; a fixed `aggregator` leaves out what it forbids, `auto` nothing."""
    one_sided = aggregator == Aggregator.REQUESTER.value
    weights = (ONE_SIDED_WEIGHT,) if one_sided else (TWO_SIDED_WEIGHT, ONE_SIDED_WEIGHT)
    found = [ListPolicy(Order.RETRIEVAL, weight=weight) for weight in weights]
    if {Order.EASE.value, Order.SPECTRAL.value} & {*sources}:
        found += [ListPolicy(Order.BLEND, weight=weight) for weight in weights]
    found += [ListPolicy(order, weight=weights[0]) for order in Order if order.value in sources]
    both = (Aggregator.PRODUCT,) if aggregator == "auto" else (Aggregator(aggregator),)
    aggregators = dict.fromkeys((Aggregator.REQUESTER, *both)) if aggregator == "auto" else dict.fromkeys(both)
    models = (ForwardModel.LIKE,) if ranker.choice is None else (ForwardModel.CHOICE, ForwardModel.LIKE)
    found += [
        ListPolicy(Order.RANKER, model, how, weight) for weight in weights for model in models for how in aggregators
    ]
    if one_sided:
        found = [replace(policy, aggregator=Aggregator.REQUESTER) for policy in found]
    return tuple(found)


def is_simple(policy: ListPolicy) -> bool:
    """Say whether a policy needs no trees."""
    return policy.order is not Order.RANKER


def judge_lists(
    ground: HeldOutLists,
    ranker: Ranker,
    compared: tuple[ListPolicy, ...],
    *,
    n_candidates: int,
    max_people: int,
    seed: int,
    tell: Callable[[int, int], None] | None = None,
) -> JudgedLists:
    """Order the candidates of every policy by it, for a sample of those who like somebody after the instant.

    Each is asked at an instant of their own, with what they had decided by then.
    """
    requests = Requests.drawn(ground.decided, ground.has_history, max_people, seed)
    matched = np.isin(requests.decided.pair, ground.decided.pair[ground.matched])
    rng = np.random.default_rng(seed)
    judged: list[_Judged] = []
    at_us = []
    for number in range(len(requests)):
        if int(requests.at_us[number]) <= ground.after_us:
            continue
        if tell is not None:
            tell(number, len(requests))
        after = requests.after(number)
        found = _judge_one(
            ground, ranker, compared, requests, number, matched_after=matched[after], n_candidates=n_candidates, rng=rng
        )
        if found is not None:
            judged.append(found)
            at_us.append(int(requests.at_us[number]))
    as_columns = [
        np.array(rows, dtype=np.float64).reshape(-1, len(compared)).T for rows in zip(*judged, strict=True)
    ] or [np.empty((len(compared), 0))] * len(_Judged._fields)
    held = ground.decided.is_like
    share = float(ground.matched[held].mean()) if held.any() else 0.0
    with_match = int(np.isfinite(as_columns[1][0]).sum()) if as_columns[1].size else 0
    has_matches = with_match >= _MIN_MATCHED and share >= _MIN_MATCH_SHARE
    likes, matches, precision, told, matches_told = as_columns
    return JudgedLists(
        compared, likes, matches, precision, told, matches_told, np.array(at_us, dtype=np.int64), has_matches
    )


class _Judged(NamedTuple):
    """What one request says of each policy."""

    likes: list[float]
    matches: list[float]
    match_precision: list[float]
    told_apart: list[float]
    matches_told_apart: list[float]


def _judge_one(
    ground: HeldOutLists,
    ranker: Ranker,
    compared: tuple[ListPolicy, ...],
    requests: Requests,
    number: int,
    *,
    matched_after: Bools,
    n_candidates: int,
    rng: np.random.Generator,
) -> _Judged | None:
    after, at_us = requests.after(number), int(requests.at_us[number])
    requester = ground.requests.at(int(requests.actor[number]), at_us)
    at_s = at_us / 1e6
    terms = requester.terms(at_s)
    people = ground.requests.people
    targets = requests.decided.target[after].astype(np.int64)
    open_ = ground.population.showable(terms, ground.population.positions(people.user_ids[targets]))
    liked, matched = targets[open_ & requests.decided.is_like[after]], targets[open_ & matched_after]
    if not liked.size:
        return None
    taste = PastTaste(people, ground.requests.history, at_us)
    asked = Asked.of(ground.stage, requester, at_s)
    likes, matches, precision = [], [], []
    for ids in served_lists(compared, lambda policy: find_candidates(
        ground.stage, ground.population, requester, terms, taste,
        policy=policy, n=n_candidates, at=at_s, rng=rng, asked=asked,
    ), ranker):  # fmt: skip
        lists = people.positions(ids[:TOP])
        likes.append(ndcg(lists, liked))
        matches.append(ndcg(lists, matched) if matched.size else float("nan"))
        precision.append(float(np.isin(lists[:MATCH_TOP], matched).sum() / MATCH_TOP))
    unknown = [float("nan")] * len(compared)
    told, matches_told = unknown, unknown
    if ground.by_chance:
        among = people.user_ids[np.unique(targets[open_])]
        found = candidates_among(ground.stage, ground.population, requester, among, taste, at=at_s, asked=asked)
        predicted = _Predicted.of(found, ranker)
        scores, ids = [predicted.scored(policy).score for policy in compared], predicted.user_ids
        told = [told_apart(score, np.isin(ids, people.user_ids[liked])) for score in scores]
        matches_told = [told_apart(score, np.isin(ids, people.user_ids[matched])) for score in scores]
    return _Judged(likes, matches, precision, told, matches_told)


def served_lists(
    compared: tuple[ListPolicy, ...], find: Callable[[ListPolicy], Candidates], ranker: Ranker
) -> Iterator[Ids]:
    """Yield the ids of each policy's list, best first, from the candidates it would be served from.

    Policies of which the first stage reads the same share their candidates, and what the models say of them.
    """
    pools: dict[tuple[float, str, bool], Candidates] = {}
    said: dict[tuple[float, str, bool], _Predicted] = {}
    for policy in compared:
        sought = sought_by(policy)
        if sought not in pools:
            pools[sought] = find(policy)
        found = pools[sought]
        if is_simple(policy):
            yield listed_by_first_stage(policy, found)[0]
            continue
        if sought not in said:
            said[sought] = _Predicted.of(found, ranker)
        predicted = said[sought]
        yield predicted.user_ids[predicted.scored(policy).order(predicted.user_ids)]


@dataclass(frozen=True)
class _Predicted:
    """One request's candidates and what the models say of each, float32[n], for any policy to order by."""

    found: Candidates
    like: Floats
    choice: Floats
    back: Floats

    @classmethod
    def of(cls, found: Candidates, ranker: Ranker) -> Self:
        features = found.features()
        like, back = np.split(ranker.predict(features), 2)
        choice = like if ranker.choice is None else ranker.choice.predict(features[: len(like)])
        return cls(found, like, choice, np.where(found.waiting() > 0, CERTAIN, back))

    @property
    def user_ids(self) -> Ids:
        return self.found.pool.people.user_ids

    def scored(self, policy: ListPolicy) -> Scored:
        return scored_by(policy, self.found.context, self.like, self.choice, self.back)
