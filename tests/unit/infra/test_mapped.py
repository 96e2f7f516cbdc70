from pathlib import Path

import numpy as np
import pytest

from infra.mapped import forget_pages

PAGES = 64
PAGE = 4096

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")


def mapped(folder: Path) -> np.ndarray:
    folder.mkdir()
    np.save(folder / "rows.npy", np.arange(PAGES * PAGE // 8))
    return np.asarray(np.load(folder / "rows.npy", mmap_mode="r"))


def resident_kb(folder: Path) -> int:
    """How much of the files in a folder this process has in its page table."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_pages_of_mapped_files_are_forgotten_and_found_again(tmp_path: Path) -> None:
    rows = mapped(tmp_path / "old")
    assert rows.sum() > 0
    assert resident_kb(tmp_path / "old") >= PAGES * PAGE // 1024
    assert forget_pages([tmp_path / "old"]) >= PAGES * PAGE
    assert resident_kb(tmp_path / "old") == 0
    assert np.array_equal(rows, np.arange(PAGES * PAGE // 8))


def test_files_of_other_folders_stay(tmp_path: Path) -> None:
    rows = mapped(tmp_path / "new")
    assert rows.sum() > 0
    before = resident_kb(tmp_path / "new")
    assert forget_pages([tmp_path / "old", tmp_path]) == 0
    assert resident_kb(tmp_path / "new") == before


def test_what_was_written_to_a_mapping_is_not_lost(tmp_path: Path) -> None:
    mapped(tmp_path / "old")
    rows = np.load(tmp_path / "old" / "rows.npy", mmap_mode="c")
    rows[7] = -1
    forget_pages([tmp_path / "old"])
    assert rows[7] == -1
