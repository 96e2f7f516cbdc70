"""Prices of exposure on their way from a sample of lists into the lists that are served."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_repo.layout import RANKING_FEATURES
from feature_repo.population.people import People
from feature_repo.population.population import Population
from pipelines.features.events import LIKE, Events
from pipelines.metrics import gini
from pipelines.ranking.requests import PastRequests, PastTaste
from pipelines.retrieval.exposure.config import PricesConfig
from pipelines.retrieval.exposure.sampling import Market, Priced, fit_prices
from pipelines.retrieval.neighbours import fit_neighbours
from registry.contracts import ReleaseVersions
from registry.errors import CorruptArtifact
from registry.models.artifacts import read_manifest
from registry.models.ranker import ListPolicy, Order
from registry.release import Release
from registry.scoring.exposure import less_price
from registry.scoring.first_stage import FittedStage
from registry.scoring.pool import Pool
from registry.scoring.prices import Prices
from registry.scoring.retrieval import CandidateList, merge_candidates
from registry.scoring.two_stages import find_candidates, recommend
from serving.recommend.pool import Ranked
from serving.recommend.stages.reranking import spread_exposure
from tests.releases import make_embedding, make_index, make_ranker

IDS = np.arange(1, 61, dtype=np.int64)
STARS = np.arange(6)
NOW_US = 10_000
PLACES = 5
SMALL = PricesConfig(price_places=PLACES, price_slack=1.0, price_people=60)


@pytest.fixture(scope="module")
def market() -> Market:
    """60 people, each of whom likes two of six stars and one neighbour."""
    rng = np.random.default_rng(1)
    rows = [(a, int(b)) for a in range(60) for b in (*rng.choice(STARS, 2, replace=False), 6 + a % 54) if a != b]
    actor, target = np.array(rows).T
    events = Events(
        IDS,
        actor.astype(np.int32),
        target.astype(np.int32),
        np.full(len(rows), LIKE, np.int8),
        np.arange(len(rows), dtype=np.int64),
    )
    embedding, people = make_embedding(), People.build(IDS)
    stage = FittedStage(embedding, make_index(embedding), fit_neighbours(events), 20)
    return Market(stage, Population.build(people), PastRequests(people, events), NOW_US, 60)


@pytest.fixture(scope="module")
def priced(market: Market) -> Priced:
    return fit_prices(market, SMALL, lambda: 0.0)


def lists_at(market: Market, prices: Prices | None, strength: float) -> np.ndarray:
    stage = market.stage
    release = Release(
        ReleaseVersions(1, 1, 1),
        stage.embedding,
        stage.index,
        make_ranker(feature_names=RANKING_FEATURES),
        {},
        stage.neighbours,
        prices,
    )
    release.__dict__["last_likes"] = 20
    shown = []
    for position in range(60):
        asked = market.requests.at(position, NOW_US)
        policy = ListPolicy(Order.ITEM_KNN, exposure_strength=strength)
        found = find_candidates(
            release,
            market.population,
            asked,
            asked.terms(NOW_US / 1e6),
            PastTaste(market.requests.people, market.requests.history, NOW_US),
            policy=policy,
            n=60,
            at=NOW_US / 1e6,
            rng=np.random.default_rng(position),
        )
        ids, _ = recommend(release, policy, found)
        shown.append(ids[:PLACES])
    return np.array(shown)


def inequality(shown: np.ndarray) -> float:
    return gini(np.bincount(shown.ravel(), minlength=61)[1:])


def test_who_is_near_the_top_of_all_lists_costs_most(priced: Priced) -> None:
    assert priced.lists == 60
    price = priced.prices.of(IDS)
    assert price[STARS].min() > np.median(price)
    assert set(np.argsort(-price)[:4]) <= set(STARS.tolist())
    without, at_full_strength = priced.effect
    assert at_full_strength.gini < without.gini - 0.1


def test_strength_one_evens_out_who_is_shown_and_strength_zero_changes_nothing(market: Market, priced: Priced) -> None:
    unpriced = lists_at(market, None, 1.0)
    assert np.array_equal(lists_at(market, priced.prices, 0.0), unpriced)
    assert inequality(lists_at(market, priced.prices, 1.0)) < inequality(unpriced) - 0.05


def test_the_same_market_has_the_same_prices_and_a_market_without_lists_has_none(
    market: Market, priced: Priced
) -> None:
    again = fit_prices(market, SMALL, lambda: 0.0)
    assert np.array_equal(again.prices.prices, priced.prices.prices)
    nothing = fit_prices(market, SMALL.model_copy(update={"price_people": 0}), lambda: 0.0)
    assert (nothing.lists, len(nothing.prices), nothing.metrics()["exposure_priced_people"]) == (0, 0, 0.0)


def test_no_further_list_is_made_once_the_time_is_up(market: Market) -> None:
    ticks = iter(range(1_000))
    config = SMALL.model_copy(update={"price_seconds": 3.0})
    assert fit_prices(market, config, lambda: float(next(ticks))).lists == 3


def test_a_price_is_counted_in_standard_deviations_of_the_candidates_scores() -> None:
    prices = Prices(np.array([20, 40]), np.array([1.0, 0.5], np.float32))
    ids, score = np.array([10, 20, 30, 40]), np.array([0.0, 4.0, 0.0, 4.0], np.float32)
    assert less_price(score, ids, prices, 1.0).tolist() == [0.0, 2.0, 0.0, 3.0]
    assert less_price(10 * score, ids, prices, 1.0).tolist() == [0.0, 20.0, 0.0, 30.0]
    assert less_price(score, ids, prices, 0.0) is score
    unknown = np.array([0.0, 4.0, 0.0, -1e9], np.float32)
    assert less_price(unknown, ids, prices, 1.0)[1] == pytest.approx(4.0 - np.std([0.0, 4.0, 0.0]))


def test_serving_reorders_by_the_same_scores_before_exploration() -> None:
    ids, score = np.array([10, 20, 30]), np.array([1.0, 3.0, 2.0], np.float32)
    found = merge_candidates({"retrieval": CandidateList(ids, score)})
    ranked = Ranked(Pool(People.build(ids), found), np.array([1, 2, 0]), score, np.ones(3, np.float32))
    prices = Prices(np.array([20]), np.array([2.0], np.float32))
    moved = spread_exposure(ranked, prices, 1.0)
    assert ids[moved.order].tolist() == [30, 20, 10]
    assert np.array_equal(moved.score, less_price(score, ids, prices, 1.0))
    assert spread_exposure(ranked, prices, 0.0) is ranked
    assert spread_exposure(ranked, None, 1.0) is ranked


def test_prices_lie_beside_the_index_and_an_index_without_them_has_none(tmp_path: Path) -> None:
    index = make_index(make_embedding())
    prices = Prices.of_everybody(IDS, np.where(IDS % 7 == 0, 0.5, 0.0))
    index.save(tmp_path / "priced", {"embedding_digest": "0" * 64}, beside=prices.writers())
    read = Prices.load(tmp_path / "priced", read_manifest(tmp_path / "priced"))
    assert read is not None
    assert np.flatnonzero(read.of(IDS)).tolist() == np.flatnonzero(IDS % 7 == 0).tolist()
    index.save(tmp_path / "plain", {"embedding_digest": "0" * 64})
    assert Prices.load(tmp_path / "plain", read_manifest(tmp_path / "plain")) is None


@pytest.mark.parametrize("wrong", [{"prices": np.array([-1, 1], np.float32)}, {"user_ids": np.array([2, 1])}])
def test_prices_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, np.ndarray]) -> None:
    made = replace(Prices(np.array([1, 2]), np.ones(2, np.float32)), **wrong)
    make_index(make_embedding()).save(tmp_path / "index", {"embedding_digest": "0" * 64}, beside=made.writers())
    with pytest.raises(CorruptArtifact, match="prices of exposure"):
        Prices.load(tmp_path / "index", read_manifest(tmp_path / "index"))
