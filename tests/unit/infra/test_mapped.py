from pathlib import Path

import numpy as np

from infra.mapped import forget_pages
from tests.resident import only_where_told, resident_kb

PAGES = 64
PAGE = 4096

pytestmark = only_where_told


def mapped(folder: Path) -> np.ndarray:
    folder.mkdir()
    np.save(folder / "rows.npy", np.arange(PAGES * PAGE // 8))
    return np.asarray(np.load(folder / "rows.npy", mmap_mode="r"))


def test_pages_of_mapped_files_are_forgotten_and_found_again(tmp_path: Path) -> None:
    rows = mapped(tmp_path / "old")
    assert rows.sum() > 0
    assert (resident_kb(tmp_path / "old") or 0) >= PAGES * PAGE // 1024
    assert forget_pages([rows.ctypes.data]) >= PAGES * PAGE
    assert resident_kb(tmp_path / "old") == 0
    assert np.array_equal(rows, np.arange(PAGES * PAGE // 8))


def test_other_files_and_memory_without_a_file_stay(tmp_path: Path) -> None:
    rows, memory = mapped(tmp_path / "new"), np.arange(1_000_000)
    assert rows.sum() > 0
    before = resident_kb(tmp_path / "new")
    assert forget_pages([memory.ctypes.data, 0]) == 0
    assert resident_kb(tmp_path / "new") == before
    assert np.array_equal(memory, np.arange(1_000_000))


def test_what_was_written_to_a_mapping_is_not_lost(tmp_path: Path) -> None:
    mapped(tmp_path / "old")
    rows = np.load(tmp_path / "old" / "rows.npy", mmap_mode="c")
    rows[7] = -1
    assert forget_pages([rows.ctypes.data]) == 0
    assert rows[7] == -1
