from pathlib import Path

import psutil
import pytest

from infra.own_process import OwnProcess, memory_limit_bytes


def test_a_process_tells_its_memory_time_descriptors_and_disk(tmp_path: Path) -> None:
    seen = OwnProcess(tmp_path).figures()
    assert seen.own_bytes > 2**20
    assert seen.own_bytes + seen.mapped_bytes <= psutil.Process().memory_info().rss * 1.5
    assert seen.cpu_s > 0
    assert seen.descriptors >= 3
    assert 0 < seen.disk_free_bytes <= seen.disk_size_bytes


def test_a_data_folder_that_is_not_there_yet_lies_on_some_disk(tmp_path: Path) -> None:
    assert OwnProcess(tmp_path / "not" / "yet").figures().disk_size_bytes > 0


@pytest.mark.parametrize(("said", "limit"), [("1048576\n", 1048576), ("max\n", None), (None, None)])
def test_the_limit_of_the_container_counts_where_there_is_one(
    said: str | None, limit: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "memory.max"
    if said is not None:
        path.write_text(said)
    assert memory_limit_bytes((path,)) == (limit or psutil.virtual_memory().total)


def test_a_limit_beyond_the_machine_is_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(str(2**62))
    assert memory_limit_bytes((tmp_path / "memory.max",)) == psutil.virtual_memory().total
