"""Ids are found by a table where they are dense, by search where they are not, and the answers are the same."""

import numpy as np
import pytest

from infra.db.id_rows import IdRows


@pytest.mark.parametrize(
    ("ids", "table"),
    [
        (np.arange(1, 20_001) * 3, "a table"),
        (np.arange(1, 20_001) * 1_000, "none"),
        (np.arange(1, 101), "none"),
        (np.empty(0, dtype=np.int64), "none"),
    ],
    ids=["dense", "sparse", "few", "none"],
)
def test_every_id_is_found_and_no_other(ids: np.ndarray, table: str) -> None:
    rows = IdRows.of(ids)
    assert (len(rows.table) > 0) is (table == "a table")
    np.testing.assert_array_equal(rows.find(ids), np.arange(len(ids)))
    strangers = [-5, -1, 0, 2, 10**15]
    assert rows.find([one for one in strangers if one not in ids.tolist()]).max() == -1


def test_answers_have_the_shape_of_the_question() -> None:
    assert IdRows.of(np.array([3, 8])).find([[8, 1], [3, 3]]).tolist() == [[1, -1], [0, 0]]
    assert IdRows.of(np.array([3, 8])).find(8) == 1
