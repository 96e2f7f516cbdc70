import numpy as np
import pytest

from serving.errors import InvalidRequest
from serving.recommend.paging import MAX_CURSOR, MOST, NOBODY, cursor_after, shown_before


def test_a_cursor_holds_everybody_who_was_shown() -> None:
    first = cursor_after(NOBODY, [7, 2**63 - 1], 2)
    assert first is not None
    assert shown_before(first).tolist() == [7, 2**63 - 1]
    second = cursor_after(shown_before(first), [9, 1], 2)
    assert second is not None
    assert shown_before(second).tolist() == [7, 2**63 - 1, 9, 1]


def test_there_is_no_page_after_one_that_was_not_full_and_none_beyond_the_bound() -> None:
    assert cursor_after(NOBODY, [7], 2) is None
    assert cursor_after(NOBODY, [], 2) is None
    full = np.arange(1, MOST - 3)
    last = cursor_after(full, [5000, 5001], 2)
    assert last is None or len(shown_before(last)) + 2 <= MOST
    assert cursor_after(np.arange(1, MOST), [5000], 1) is None


def test_the_longest_cursor_is_one_that_a_request_may_have() -> None:
    cursor = cursor_after(np.arange(1, MOST - 1), [5000], 1)
    assert cursor is not None
    assert len(cursor) <= MAX_CURSOR


@pytest.mark.parametrize("cursor", ["", "????", "AAAAAAAAAAA=", "é", "_" * 12])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="send `next`"):
        shown_before(cursor)
