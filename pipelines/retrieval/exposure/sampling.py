"""Prices of exposure from a sample of the lists that the two stages would make now.

There may be no ranker yet when an index is built, so the lists are ordered by the blend of factors and likes in common:
whom both put near the top is near the top of what is served. Every list counts once, and its scores are in standard
deviations of its own candidates, as serving subtracts them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.population.population import Population
from pipelines.ranking.requests import PastRequests, PastTaste
from pipelines.retrieval.exposure.config import PricesConfig
from pipelines.retrieval.exposure.prices import SampledLists, equal_capacity, exposure_prices
from pipelines.retrieval.exposure.tradeoff import TradeOff, trade_offs
from registry.models.ranker import ListPolicy, Order
from registry.scoring.exposure import spread_of
from registry.scoring.first_stage import FirstStage
from registry.scoring.prices import Prices
from registry.scoring.two_stages import find_candidates, listed_by_first_stage

Ids = npt.NDArray[np.int64]
Listed = tuple[Ids, npt.NDArray[np.float32]]
_DEPTH = 5
"""Candidates kept of a list, in multiples of its places: what falls behind them by its price is seldom shown."""


@dataclass(frozen=True)
class Market:
    """A first stage, who may be shown, and who may ask, at `at_us`."""

    stage: FirstStage
    population: Population
    requests: PastRequests
    at_us: int
    n_candidates: int


@dataclass(frozen=True)
class Priced:
    """Prices, from how many lists, and what they do to those lists: without them and at strength 1."""

    prices: Prices
    lists: int
    effect: tuple[TradeOff, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return what MLflow keeps of it."""
        found = {"exposure_lists": float(self.lists), "exposure_priced_people": float(len(self.prices))}
        if self.effect:
            without, priced = self.effect[0], self.effect[-1]
            found |= {"exposure_gini_unpriced": without.gini, "exposure_gini_priced": priced.gini}
        return found


def fit_prices(market: Market, config: PricesConfig, monotonic: Callable[[], float]) -> Priced:
    """Return the prices that keep everybody's exposure in a sample of lists below capacity."""
    user_ids = market.requests.people.user_ids
    lists = sampled_lists(market, config, monotonic)
    if not len(lists.candidates):
        return Priced(Prices(np.empty(0, np.int64), np.empty(0, np.float32)), 0)
    capacity = equal_capacity(lists, config.price_places, config.price_slack)
    found = exposure_prices(lists, capacity, config.price_places, rounds=config.price_rounds)
    effect = trade_offs(lists, found.prices, capacity, config.price_places, (0.0, 1.0))
    return Priced(Prices.of_everybody(user_ids, found.prices), len(lists.candidates), tuple(effect))


def sampled_lists(market: Market, config: PricesConfig, monotonic: Callable[[], float]) -> SampledLists:
    """Return the lists of a sample of those visible people who have decided on somebody."""
    people = market.requests.people
    events = market.requests.events
    askers = np.unique(events.actor[events.is_decision]).astype(np.int64)
    askers = askers[market.population.positions(people.user_ids[askers]) >= 0]
    rng = np.random.default_rng(config.price_seed)
    asked = rng.permutation(askers)[: config.price_people].tolist()
    width = _DEPTH * config.price_places
    taste = PastTaste(people, market.requests.history, market.at_us)
    until_s = monotonic() + config.price_seconds
    rows: list[Listed] = []
    for position in asked:
        if monotonic() > until_s:
            break
        rows.append(_listed(market, taste, position, width, rng))
    rows = [row for row in rows if len(row[0])]
    candidates = np.full((len(rows), width), -1, dtype=np.int64)
    scores = np.zeros((len(rows), width), dtype=np.float32)
    for number, (listed, score) in enumerate(rows):
        candidates[number, : len(listed)], scores[number, : len(listed)] = listed, score
    return SampledLists(candidates, scores, np.ones(len(rows)), len(people))


def _listed(market: Market, taste: PastTaste, position: int, width: int, rng: np.random.Generator) -> Listed:
    """Return the best candidates of one person as positions, and their scores in standard deviations of the pool."""
    requester = market.requests.at(position, market.at_us)
    at_s = market.at_us / 1e6
    policy = ListPolicy(Order.BLEND)
    found = find_candidates(
        market.stage,
        market.population,
        requester,
        requester.terms(at_s),
        taste,
        policy=policy,
        n=market.n_candidates,
        at=at_s,
        rng=rng,
    )
    ids, score = listed_by_first_stage(policy, found)
    spread = spread_of(score)
    unit = score / np.float32(spread) if spread > 0 else np.zeros_like(score)
    return market.requests.people.positions(ids[:width]), unit[:width]
