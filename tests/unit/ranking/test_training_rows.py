"""What a ranker learns from: visits, requests in the past, and lists that are judged before one is chosen."""

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.population.people import People
from pipelines.evaluation.spread import HeldBackPairs
from pipelines.features.events import BLOCK, LIKE, PASS, UNBLOCK, UNLIKE, Events
from pipelines.ranking.errors import NoLabels
from pipelines.ranking.lists import JudgedLists, is_simple, policies
from pipelines.ranking.order import choose
from pipelines.ranking.requests import PastRequests
from pipelines.ranking.rows import WindowRows
from pipelines.ranking.sessions import Requests, Sessions
from registry.models.ranker import Aggregator, ForwardModel, ListPolicy, Order

IDS = np.arange(10, 70, 10, dtype=np.int64)
DAY = 86_400_000_000


def events(*rows: tuple[int, int, int, int]) -> Events:
    """Rows of actor, target, kind, microseconds."""
    ordered = sorted(rows, key=lambda row: row[3])
    actor, target, kind, at = (np.array(column) for column in zip(*ordered, strict=True))
    return Events(IDS, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), at.astype(np.int64))


def test_a_past_requester_knows_what_was_decided_before_and_nothing_later() -> None:
    history = events((0, 1, LIKE, 1), (0, 2, PASS, 2), (3, 0, BLOCK, 3), (0, 1, PASS, 4), (0, 4, LIKE, 5))
    requests = PastRequests(People.build(IDS), history)
    early, late = requests.at(0, 4), requests.at(0, 5)
    assert (early.liked.tolist(), early.passed.tolist()) == ([20], [30])
    assert (late.liked.tolist(), late.passed.tolist()) == ([], [20, 30])  # the latest decision counts, newest first
    assert early.excluded.tolist() == [20, 30, 40]


def test_likes_that_were_taken_back_by_an_instant_are_no_taste_of_then() -> None:
    history = PastRequests(
        People.build(IDS),
        events(
            *((0, 1, LIKE, 1), (0, 2, LIKE, 2), (0, 3, LIKE, 3), (0, 3, PASS, 4), (0, 2, UNLIKE, 5), (0, 2, LIKE, 7)),
            *((4, 0, LIKE, 1), (4, 5, LIKE, 2), (0, 4, BLOCK, 3), (0, 4, UNBLOCK, 6), (0, 2, UNLIKE, 8)),
        ),
    ).history
    zero, four = np.zeros(4, dtype=np.int64), np.full(2, 4)
    at_us = np.array([5, 6, 8, 9])
    assert history.last_before(zero, at_us, 3).tolist() == [[3, 2, 1], [3, 1, -1], [2, 3, 2], [3, 1, -1]]
    assert history.last_before(zero, at_us, 1).tolist() == [[3], [3], [2], [3]]
    assert history.last_before(four, np.array([6, 7]), 2).tolist() == [[5, 0], [5, -1]]


def test_who_waits_is_told_only_where_pending_likes_may_be_known() -> None:
    history = events(
        (1, 0, LIKE, 1), (2, 0, LIKE, 2), (0, 2, PASS, 3), (3, 0, PASS, 4), (4, 0, LIKE, 5), (4, 0, PASS, 6)
    )
    quiet, told = (PastRequests(People.build(IDS), history, pending_likes=flag).at(0, 9) for flag in (False, True))
    assert (quiet.liked_by.tolist(), quiet.waiting.tolist()) == ([], [])
    assert (told.liked_by.tolist(), told.waiting.tolist()) == ([50, 20], [20])


def test_a_visit_holds_the_decisions_of_one_person_and_day() -> None:
    visits = Sessions.of(events((0, 1, LIKE, 1), (1, 2, LIKE, 2), (0, 2, PASS, 3), (0, 3, LIKE, DAY + 1)))
    assert visits.actor.tolist() == [0, 0, 1]
    assert [visits.decided.target[visits.rows(i)].tolist() for i in range(3)] == [[1, 2], [3], [2]]
    assert visits.at_us.tolist() == [1, DAY + 1, 2]


def test_a_request_leaves_something_to_follow_and_newcomers_some_history() -> None:
    window = events(*((0, target, LIKE, 10 + target) for target in range(1, 6)), (1, 2, PASS, 9))
    drawn = Requests.drawn(window, np.zeros(6, dtype=np.bool_), most=10, seed=1)
    assert drawn.actor.tolist() == [0]  # the other one likes nobody
    known = drawn.decided.at_us[drawn.after(0)]
    assert 1 <= known.size < 5
    assert known.min() == drawn.at_us[0]


def test_decisions_of_the_same_instant_as_a_request_are_not_known_yet() -> None:
    window = events((0, 1, LIKE, 5), (0, 2, LIKE, 5), (0, 3, LIKE, 5))
    drawn = Requests.drawn(window, np.ones(6, dtype=np.bool_), most=10, seed=1)
    assert drawn.decided.target[drawn.after(0)].tolist() == [1, 2, 3]


def test_a_pair_is_held_back_in_both_directions_or_not_at_all() -> None:
    rows = [(a, b, LIKE, 10 * a + b) for a in range(6) for b in range(6) if a != b]
    spread = HeldBackPairs.of(events(*rows), 1_000, seed=3, share=0.4)
    assert 0 < len(spread.held_back) < len(rows)
    assert set(spread.held_back.pair.tolist()) == set(spread.held_back.reversed_pair.tolist())
    assert not set(spread.known.pair.tolist()) & set(spread.held_back.pair.tolist())
    teaching, judging = spread.halves(3)
    assert not set(teaching.actor.tolist()) & set(judging.actor.tolist())
    assert spread.matched(spread.held_back).all()


def test_rows_are_refused_where_there_are_none() -> None:
    with pytest.raises(NoLabels, match="after T0"):
        WindowRows.concat([]).frame(IDS)


FIRST, KNN = ListPolicy(Order.RETRIEVAL), ListPolicy(Order.ITEM_KNN)
TREES = ListPolicy(Order.RANKER, ForwardModel.CHOICE)


def judged(first: float, knn: float, trees: float, n: int = 200) -> JudgedLists:
    noise = np.random.default_rng(1).normal(scale=0.02, size=n)
    likes = np.stack([np.full(n, value) + noise for value in (first, knn, trees)])
    nothing = np.full_like(likes, np.nan)
    return JudgedLists((FIRST, KNN, TREES), likes, nothing, nothing, nothing, nothing, np.arange(n), has_matches=False)


def test_trees_serve_where_they_win_by_both_questions() -> None:
    assert choose(judged(0.2, 0.3, 0.4), judged(0.2, 0.3, 0.31), 7).chosen == TREES


def test_trees_that_surely_lose_by_one_question_give_way_to_the_best_simple_order() -> None:
    verdict = choose(judged(0.2, 0.3, 0.5), judged(0.2, 0.3, 0.2), 7)
    assert (verdict.chosen, verdict.simpler) == (KNN, KNN)


def test_matches_count_where_they_can_be_measured() -> None:
    lists = judged(0.3, 0.3, 0.3)
    matches = np.stack([np.full(200, value) for value in (0.1, 0.2, 0.4)])
    two_sided = replace(lists, matches=matches, match_precision=matches, has_matches=True)
    assert choose(two_sided, two_sided, 7).chosen == TREES


def test_matches_alone_decide_whether_the_other_side_counts_where_they_surely_can() -> None:
    one_sided, two_sided = (replace(TREES, aggregator=how) for how in (Aggregator.REQUESTER, Aggregator.PRODUCT))
    noise = np.random.default_rng(2).normal(scale=0.05, size=(3, 200))
    likes = np.array([[0.10], [0.50], [0.30]]) + noise

    def served(matches: float) -> ListPolicy:
        found = np.array([[0.10], [0.30], [matches]]) + noise[::-1]
        lists = replace(
            judged(0, 0, 0), policies=(FIRST, one_sided, two_sided), likes=likes, matches=found, match_precision=found,
            has_matches=True,
        )  # fmt: skip
        return choose(lists, lists, 7).chosen

    assert served(0.40) == two_sided  # although it has 2/5 fewer likes
    assert served(0.304) == one_sided  # no more than chance, so likes count
    assert served(0.20) == one_sided


def test_where_people_met_by_chance_telling_likes_from_passes_counts_as_much_as_the_list() -> None:
    lists = judged(0.30, 0.10, 0.20)
    told = np.full((3, 200), np.nan)
    told[:, :50] = np.array([[0.05], [0.20], [0.10]])
    by_chance = replace(lists, told_apart=told)
    np.testing.assert_allclose(lists.utility(), [1.0, 0.33, 0.67], atol=0.01)
    np.testing.assert_allclose(by_chance.utility(), [0.625, 0.667, 0.583], atol=0.01)


def test_little_evidence_keeps_the_order_of_the_first_stage() -> None:
    assert choose(judged(0.1, 0.2, 0.9, n=5), judged(0.1, 0.2, 0.9, n=5), 7).chosen == FIRST


def test_a_one_sided_setting_leaves_nothing_two_sided_to_choose() -> None:
    class Stub:
        choice = object()

    found = policies(Stub(), aggregator="requester", sources=("item_knn", "ease", "popular"))  # type: ignore[arg-type]
    assert {policy.aggregator for policy in found} == {Aggregator.REQUESTER}
    assert {policy.weight for policy in found} == {1.0}
    assert sum(is_simple(policy) for policy in found) == 5


def test_matches_weigh_as_much_as_likes_however_few_people_matched() -> None:
    lists = judged(0.30, 0.10, 0.20)
    matches = np.full((3, 200), np.nan)
    matches[:, :20] = np.array([[0.1], [0.1], [0.4]])
    two_sided = replace(lists, matches=matches, match_precision=matches, has_matches=True)
    np.testing.assert_allclose(two_sided.utility(), [1.25, 0.58, 1.67], atol=0.05)
