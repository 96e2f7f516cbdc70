"""When a like stands and when two people are a match."""

import numpy as np
import pytest

from feature_repo.kinds import Kind, code
from feature_repo.transforms.pairs import (
    NEVER,
    Intervals,
    matches,
    separations,
    standing_likes,
    standing_passes,
    taken_back,
)

A, B, C = 0, 1, 2
LIKE, PASS, SUPERLIKE, MESSAGE, BLOCK, REPORT, UNLIKE, UNBLOCK = Kind
Row = tuple[int, int, Kind, int]


def columns(*rows: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of actor, target, kind, microseconds."""
    actor, target, kind, at_us = zip(*rows, strict=True)
    return np.array(actor), np.array(target), np.array([code(one) for one in kind]), np.array(at_us)


def shown(intervals: Intervals) -> list[tuple[int, ...]]:
    parts = intervals.actor, intervals.target, intervals.began_us, intervals.ended_us
    return list(zip(*(part.tolist() for part in parts), strict=True))


def test_a_like_stands_from_the_first_of_several_until_a_pass() -> None:
    likes = standing_likes(*columns((A, B, LIKE, 1), (A, B, SUPERLIKE, 2), (A, C, PASS, 2), (A, B, PASS, 4)))
    assert shown(likes) == [(A, B, 1, 4)]


def test_whoever_changes_their_mind_twice_likes_again() -> None:
    likes = standing_likes(
        *columns((A, B, PASS, 1), (A, B, LIKE, 2), (A, B, PASS, 3), (A, B, PASS, 4), (A, B, LIKE, 5))
    )
    assert shown(likes) == [(A, B, 2, 3), (A, B, 5, NEVER)]


def test_a_pass_in_the_same_microsecond_wins_in_any_order() -> None:
    assert shown(standing_likes(*columns((A, B, PASS, 1), (A, B, LIKE, 1)))) == []
    assert shown(standing_likes(*columns((A, B, LIKE, 1), (A, B, PASS, 1)))) == []


def test_rows_may_come_in_any_order_of_time() -> None:
    assert shown(standing_likes(*columns((A, B, PASS, 4), (A, B, LIKE, 1)))) == [(A, B, 1, 4)]


@pytest.mark.parametrize(
    ("end", "until"),
    [
        ((A, B, PASS, 7), 7),
        ((B, A, PASS, 7), 7),
        ((A, B, BLOCK, 7), 7),
        ((B, A, REPORT, 7), 7),
        ((A, B, MESSAGE, 7), NEVER),
    ],
)
def test_a_match_begins_with_the_second_like_and_a_pass_a_block_or_a_report_of_either_ends_it(
    end: Row, until: int
) -> None:
    assert shown(matches(*columns((B, A, LIKE, 1), (A, B, LIKE, 3), end))) == [(A, B, 3, until)]


def test_a_like_after_the_other_side_passed_or_separated_matches_nobody() -> None:
    for ended in (PASS, BLOCK, REPORT):
        assert shown(matches(*columns((B, A, LIKE, 1), (B, A, ended, 2), (A, B, LIKE, 3)))) == []


def test_a_match_comes_back_after_a_pass_and_never_after_a_block() -> None:
    both = ((A, B, LIKE, 1), (B, A, LIKE, 2), (B, A, PASS, 3), (B, A, LIKE, 5))
    assert shown(matches(*columns(*both))) == [(A, B, 2, 3), (A, B, 5, NEVER)]
    assert shown(matches(*columns(*both, (A, B, BLOCK, 4), (A, B, LIKE, 6)))) == [(A, B, 2, 3)]


def test_a_match_that_ends_as_it_begins_is_none() -> None:
    assert shown(matches(*columns((A, B, LIKE, 1), (B, A, LIKE, 2), (A, B, BLOCK, 2)))) == []
    assert shown(matches(*columns((A, B, LIKE, 1), (B, A, LIKE, 2), (A, B, PASS, 2)))) == []


def test_a_separation_ends_the_match_of_that_pair_alone() -> None:
    both = ((A, C, LIKE, 1), (C, A, LIKE, 2), (B, C, LIKE, 1), (C, B, LIKE, 2), (A, B, LIKE, 1), (B, A, LIKE, 2))
    assert shown(matches(*columns(*both, (C, A, BLOCK, 5)))) == [(A, B, 2, NEVER), (A, C, 2, 5), (B, C, 2, NEVER)]


def test_a_like_that_is_taken_back_stands_no_more_and_may_be_given_again() -> None:
    likes = columns((A, B, LIKE, 1), (B, A, LIKE, 2), (A, B, UNLIKE, 4), (A, B, UNLIKE, 5), (A, B, LIKE, 7))
    assert shown(standing_likes(*likes)) == [(A, B, 1, 4), (A, B, 7, NEVER), (B, A, 2, NEVER)]
    assert shown(matches(*likes)) == [(A, B, 2, 4), (A, B, 7, NEVER)]
    assert taken_back(*likes).tolist() == [True, False, False, False, False]


def test_taking_back_a_like_takes_back_no_pass() -> None:
    decided = columns((A, B, LIKE, 1), (A, B, PASS, 2), (A, B, UNLIKE, 3), (A, C, UNLIKE, 3), (A, C, LIKE, 3))
    assert shown(standing_passes(*decided)) == [(A, B, 2, NEVER)]
    assert shown(standing_likes(*decided)) == [(A, B, 1, 2)]


def test_a_block_that_is_taken_back_ends_with_the_likes_from_before_it_ended() -> None:
    both = ((A, B, LIKE, 1), (B, A, LIKE, 2), (A, B, BLOCK, 4), (B, A, SUPERLIKE, 5), (A, B, UNBLOCK, 6))
    assert shown(separations(*columns(*both))) == [(A, B, 4, 6)]
    assert shown(matches(*columns(*both, (A, B, LIKE, 7)))) == [(A, B, 2, 4)]
    assert shown(matches(*columns(*both, (A, B, LIKE, 7), (B, A, LIKE, 9)))) == [(A, B, 2, 4), (A, B, 9, NEVER)]


def test_only_the_own_block_can_be_taken_back_and_no_report() -> None:
    for ended in ((B, A, BLOCK, 3), (B, A, REPORT, 3), (A, B, REPORT, 3)):
        both = columns((A, B, LIKE, 1), (B, A, LIKE, 1), ended, (A, B, UNBLOCK, 5))
        assert shown(separations(*both)) == [(A, B, 3, NEVER)]
        assert shown(matches(*both)) == [(A, B, 1, 3)]


def test_taking_back_a_block_that_does_not_stand_changes_nothing() -> None:
    both = ((A, B, LIKE, 1), (B, A, LIKE, 1), (A, B, UNBLOCK, 5))
    assert shown(matches(*columns(*both))) == [(A, B, 1, NEVER)]
    assert shown(matches(*columns(*both, (A, B, BLOCK, 5), (A, B, UNBLOCK, 9), (A, B, UNBLOCK, 11)))) == [(A, B, 1, 5)]


def test_it_holds_from_its_beginning_until_just_before_its_end() -> None:
    both = matches(*columns((A, B, LIKE, 1), (B, A, LIKE, 2), (B, A, PASS, 4), (B, A, LIKE, 6)))
    at = np.array([1, 2, 3, 4, 5, 6, 99])
    assert both.hold(np.zeros_like(at), np.ones_like(at), at).tolist() == [False, True, True, False, False, True, True]
    assert not both.hold(np.array([A]), np.array([C]), np.array([3])).any()


def test_without_interactions_nothing_holds() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert shown(matches(nothing, nothing, nothing, nothing)) == []
    assert not matches(nothing, nothing, nothing, nothing).hold(np.array([A]), np.array([B]), np.array([1])).any()
