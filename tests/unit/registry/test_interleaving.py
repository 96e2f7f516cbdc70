"""Team-draft interleaving gives every release the same chances, and the better one the wins."""

import numpy as np
import pytest

from registry.experiments.interleaving import FIRST, SECOND, credit, outcome, team_draft


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_each_round_takes_one_person_of_each_release_in_the_order_of_the_coin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = team_draft(ids(1, 2, 3), ids(4, 5, 6), 4, rng)
        assert sorted(drawn.team[:2].tolist()) == [FIRST, SECOND]
        assert sorted(drawn.team[2:].tolist()) == [FIRST, SECOND]
        assert drawn.user_ids[drawn.team == FIRST].tolist() == [1, 2]
        assert drawn.user_ids[drawn.team == SECOND].tolist() == [4, 5]


def test_nobody_is_shown_twice_and_a_short_list_leaves_its_places_to_the_other() -> None:
    drawn = team_draft(ids(1, 2), ids(2, 1, 3, 4, 5), 10, np.random.default_rng(1))
    assert sorted(drawn.user_ids.tolist()) == [1, 2, 3, 4, 5]
    assert len(team_draft(ids(), ids(), 5, np.random.default_rng(1)).user_ids) == 0


def test_credit_goes_to_the_release_that_placed_the_chosen() -> None:
    team = np.array([FIRST, SECOND, SECOND], dtype=np.int8)
    assert credit(team, np.array([True, False, False])) == 1
    assert credit(team, np.array([True, True, True])) == -1
    assert credit(team, np.array([True, True, False])) == 0


@pytest.mark.parametrize("second", [ids(1, 2, 3, 4, 5), ids(5, 1, 4, 2, 3), ids(6, 7, 8, 9, 10)])
def test_choices_that_look_only_at_the_place_favour_no_release(second: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    first, by_place = ids(1, 2, 3, 4, 5), np.array([0.6, 0.4, 0.2, 0.1, 0.05])
    credited = []
    for _ in range(6_000):
        drawn = team_draft(first, second, 5, rng)
        credited.append(credit(drawn.team, rng.random(5) < by_place))
    assert abs(np.mean(credited)) < 4 * np.std(credited) / np.sqrt(6_000)


def test_the_release_that_ranks_the_liked_higher_wins() -> None:
    rng = np.random.default_rng(3)
    liked = np.isin(np.arange(21), [1, 2, 3])
    credited = []
    for _ in range(300):
        drawn = team_draft(ids(1, 11, 2, 12), ids(13, 14, 1, 15), 4, rng)
        credited.append(credit(drawn.team, liked[drawn.user_ids]))
    found = outcome(np.array(credited))
    assert found.first_wins > 5 * max(found.second_wins, 1)
    assert found.p_value < 1e-6
    assert found.first_wins + found.second_wins + found.draws == 300


def test_draws_alone_decide_nothing() -> None:
    assert outcome(np.zeros(5, dtype=np.int64)).p_value == 1.0
