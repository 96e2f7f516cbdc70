import numpy as np
import pytest

from registry.scoring.retrieval import CandidateList, merge_candidates
from serving.recommend.pool import Pool, Ranked
from serving.recommend.stages.reranking import explore
from tests.serving_fakes import people_of, person


def ranked(n: int = 20, drawn: int = 10) -> Ranked:
    people = people_of([person(user_id) for user_id in range(1, n + 1)])
    scores = np.linspace(1, 0, n).astype(np.float32)
    late = people.user_ids[n - drawn :]
    found = merge_candidates(
        {
            "retrieval": CandidateList(people.user_ids, scores),
            "random": CandidateList(late, np.zeros(drawn, np.float32), np.full(drawn, 0.5, np.float32)),
        }
    )
    return Ranked(Pool(people, found), np.arange(n), scores, np.ones(n, np.float32))


def test_without_a_share_the_order_is_the_rankers() -> None:
    result = explore(ranked(), 10, 0.0, np.random.default_rng(0))
    assert result.order.tolist() == list(range(20))
    assert result.propensity.tolist() == [1.0] * 20


def test_nobody_is_lost_or_doubled() -> None:
    for seed in range(50):
        result = explore(ranked(), 10, 0.4, np.random.default_rng(seed))
        assert sorted(result.order.tolist()) == list(range(20))


def test_about_the_share_of_places_is_explored() -> None:
    drawn = 0
    for seed in range(400):
        result = explore(ranked(200, 150), 20, 0.25, np.random.default_rng(seed))
        drawn += int(np.count_nonzero(result.propensity[result.order[:20]] < 0.1))
    assert drawn / (400 * 20) == pytest.approx(0.25, abs=0.03)


def test_the_upper_half_of_an_answer_is_never_given_away() -> None:
    for seed in range(50):
        result = explore(ranked(), 10, 0.4, np.random.default_rng(seed))
        assert result.order[:5].tolist() == list(range(5))
        assert result.propensity[:5].tolist() == [1.0] * 5


def test_the_propensity_of_the_explored_is_the_rate_of_the_lower_half_times_both_draws() -> None:
    result = explore(ranked(20, 10), 10, 0.4, np.random.default_rng(1))
    values = {round(float(result.propensity[row]), 4) for row in result.order[5:10]}
    assert values == {0.2, 0.04}  # 1 - 2 * share, and 2 * share / 10 drawn * 0.5 chance of being drawn


def test_an_answer_of_one_explores_its_only_place() -> None:
    explored = [explore(ranked(), 1, 0.25, np.random.default_rng(seed)).order[0] >= 10 for seed in range(400)]
    assert sum(explored) / 400 == pytest.approx(0.25, abs=0.06)


def test_the_greedy_keep_their_order() -> None:
    result = explore(ranked(), 10, 0.3, np.random.default_rng(2))
    greedy = [row for row in result.order.tolist() if result.propensity[row] >= 0.4]
    assert greedy == sorted(greedy)


def test_whoever_holds_a_place_and_may_be_drawn_has_the_propensity_of_both() -> None:
    everybody = ranked(4, 4)
    shown = [explore(everybody, 2, 0.25, np.random.default_rng(seed)) for seed in range(2_000)]
    told = {(int(one.order[1]), round(float(one.propensity[one.order[1]]), 4)) for one in shown}
    # Each person has one propensity at the second place, however they came there: half of it is kept, and each of four
    # is drawn into the other half with the chance of a half that the random source had.
    assert told == {(0, 0.0625), (1, 0.5625), (2, 0.0625), (3, 0.0625)}


def test_who_got_a_place_by_exploration_is_marked() -> None:
    for seed in range(50):
        result = explore(ranked(40, 20), 10, 0.4, np.random.default_rng(seed))
        assert result.explored is not None
        moved_up = [row for row in result.order[:10].tolist() if row >= 20]
        assert [row for row in result.order[:10].tolist() if result.explored[row]] == moved_up
    assert explore(ranked(), 10, 0.0, np.random.default_rng(0)).explored is None
