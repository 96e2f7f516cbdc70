import numpy as np
import pandas as pd
import pytest

from feature_repo.stores.as_of import as_of_join


@pytest.mark.parametrize("block_rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("ttl", [0, 40])
def test_the_latest_row_at_or_before_each_instant_is_found(block_rows: int, ttl: int) -> None:
    rng = np.random.default_rng(block_rows)
    rows = pd.DataFrame({"key": rng.integers(1, 12, 150), "at": rng.integers(0, 100, 150)})
    rows = rows.sort_values(["key", "at"], kind="stable").reset_index(drop=True)
    values = rng.random((150, 3)).astype(np.float32)
    keys, at = rng.integers(0, 14, 400), rng.integers(-5, 120, 400)
    blocks = (
        (
            rows["key"].to_numpy()[start : start + block_rows],
            rows["at"].to_numpy()[start : start + block_rows],
            values[start : start + block_rows],
        )
        for start in range(0, 150, block_rows)
    )
    found, present = as_of_join(keys, at, blocks, 3, ttl)
    for key, instant, row, known in zip(keys, at, found, present, strict=True):
        earlier = rows[(rows["key"] == key) & (rows["at"] <= instant)]
        if len(earlier) and (not ttl or earlier["at"].iloc[-1] >= instant - ttl):
            assert known
            np.testing.assert_array_equal(row, values[earlier.index[-1]])
        else:
            assert not known
            assert not row.any()


def test_nothing_is_found_in_an_empty_stream() -> None:
    found, present = as_of_join(np.array([1, 2]), np.array([5, 5]), [], 4, 0)
    assert found.shape == (2, 4)
    assert not present.any()
