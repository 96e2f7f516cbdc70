"""The odds of a like are learned from answers: whom people like, how picky and popular they are, what profiles tell."""

import numpy as np
import pytest

from pipelines.features.events import LIKE, PASS, Events
from pipelines.retrieval.config import NeighboursConfig
from pipelines.retrieval.like_odds import fit_like_odds
from registry.models.like_odds import LikeOdds

N = 120
IDS = np.arange(1, N + 1, dtype=np.int64)
CAMP = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)
CONFIG = NeighboursConfig(threads=1, odds_dimensions=4)


def decided(*, share: float = 0.3, silent: int | None = None, popular: int | None = None) -> Events:
    """People like their own camp nine times in ten and the other one time in ten, of a random share of all pairs.

    `silent` takes part in no decision, `popular` is liked by everybody.
    """
    rng = np.random.default_rng(3)
    actor, target = np.divmod(np.arange(N * N), N)
    met = (actor != target) & (rng.random(N * N) < share)
    if silent is not None:
        met &= (actor != silent) & (target != silent)
    actor, target = actor[met], target[met]
    chance = np.where(CAMP[actor] == CAMP[target], 0.9, 0.1)
    if popular is not None:
        chance[target == popular] = 1.0
    kind = np.where(rng.random(actor.size) < chance, LIKE, PASS).astype(np.int8)
    at_us = np.arange(actor.size, dtype=np.int64) * 1_000_000
    return Events(IDS, actor.astype(np.int32), target.astype(np.int32), kind, at_us)


def camps(rows: np.ndarray) -> np.ndarray:
    """Return a profile that tells the camp, beside a number that tells nothing, float32[m, 2]."""
    return np.stack([CAMP[rows], rows % 7], axis=1).astype(np.float32)


def mean_odds(odds: LikeOdds, person: int) -> tuple[float, float]:
    """Return the mean log-odds that a person likes their own camp and the other."""
    forward, _ = odds.between(odds.of_row(person), np.arange(N))
    own = (CAMP[person] == CAMP) & (np.arange(N) != person)
    return float(forward[own].mean()), float(forward[CAMP[person] != CAMP].mean())


def test_a_pair_that_never_met_is_judged_by_what_both_answered_others() -> None:
    events = decided()
    odds = fit_like_odds(events, None, CONFIG)
    assert odds is not None
    met = np.zeros((N, N), dtype=bool)
    met[events.actor, events.target] = True
    for person in range(0, N, 10):
        forward, _ = odds.between(odds.of_row(person), np.arange(N))
        never = ~met[person] & (np.arange(N) != person)
        told = (forward[never] > 0) == (CAMP[never] == CAMP[person])
        assert told.mean() > 0.95


def test_the_odds_are_about_those_of_the_world() -> None:
    odds = fit_like_odds(decided(), None, CONFIG)
    assert odds is not None
    own, other = np.mean([mean_odds(odds, person) for person in range(N)], axis=0)
    assert own == pytest.approx(np.log(9), abs=0.5)
    assert other == pytest.approx(-np.log(9), abs=0.5)


def test_whom_everybody_likes_is_liked_by_the_other_camp_too() -> None:
    odds = fit_like_odds(decided(popular=5), None, CONFIG)
    assert odds is not None
    forward, _ = odds.between(odds.of_row(0), np.array([5, 7]))
    assert forward[0] > 0 > forward[1]


def test_of_whom_nothing_is_known_the_profile_tells() -> None:
    odds = fit_like_odds(decided(silent=8), camps, CONFIG)
    without = fit_like_odds(decided(silent=8), None, CONFIG)
    assert odds is not None
    assert without is not None
    own, other = mean_odds(odds, 8)
    assert own > 0.7
    assert other < -0.7
    assert np.ptp(mean_odds(without, 8)) < 0.2


def test_a_newcomer_who_decides_gets_about_the_factors_of_a_fit_that_knows_them() -> None:
    events = decided()
    odds, without = fit_like_odds(events, camps, CONFIG), fit_like_odds(decided(silent=8), camps, CONFIG)
    assert odds is not None
    assert without is not None
    own = events.take(events.actor == 8)
    rows = own.target.astype(np.int64)
    newcomer = without.of_newcomer(camps(np.array([8]))[0], rows[own.is_like], rows[~own.is_like])
    fitted = odds.between(odds.of_row(8), np.arange(N))[0]
    assert np.abs(without.between(newcomer, np.arange(N))[0] - fitted).mean() < 0.3


def test_answers_outweigh_a_profile_that_tells_another_camp() -> None:
    odds = fit_like_odds(decided(silent=8), camps, CONFIG)
    assert odds is not None
    others = np.flatnonzero(np.arange(N) != 8)
    own, rest = others[CAMP[others] == CAMP[8]], others[CAMP[others] != CAMP[8]]
    forward, _ = odds.between(odds.of_newcomer(camps(np.array([9]))[0], own[:20], rest[:20]), np.arange(N))
    assert forward[own[20:]].mean() > forward[rest[20:]].mean()


def test_dimensions_that_nobody_needs_vanish() -> None:
    odds = fit_like_odds(decided(), None, CONFIG)
    assert odds is not None
    spread = np.sort(odds.chooser[:, :-1].std(axis=0) * odds.chosen[:, :-1].std(axis=0))
    assert spread[-2] < 0.05 * spread[-1]


@pytest.mark.parametrize("kind", [LIKE, PASS])
def test_without_both_answers_there_is_nothing_to_learn(kind: int) -> None:
    events = decided()
    one_way = events.take(events.kind == kind)
    assert fit_like_odds(one_way, None, CONFIG) is None
    assert fit_like_odds(events, None, CONFIG.model_copy(update={"odds_dimensions": 0})) is None


def test_any_number_of_threads_gives_equal_odds() -> None:
    one, three = (
        fit_like_odds(decided(), camps, CONFIG.model_copy(update={"threads": n, "odds_rounds": 5})) for n in (1, 3)
    )
    assert one is not None
    assert three is not None
    assert np.array_equal(one.chooser, three.chooser)
    assert np.array_equal(one.chosen, three.chosen)
