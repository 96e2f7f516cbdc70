"""The data folder: made where it can be, and one sentence where it cannot."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli import run
from infra.data_folder import require_data_folder
from infra.errors import ConfigurationError
from infra.supervisor.state import is_locked


def test_a_folder_that_is_missing_is_made_with_its_parents(tmp_path: Path) -> None:
    require_data_folder(tmp_path / "a" / "b")
    require_data_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("below", ["", "inside/deeper"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigurationError, match=r"cannot be made: `.*/f` is a file and no folder; give another with"):
        require_data_folder(tmp_path / "f" / below)


def test_a_place_where_nobody_can_make_folders_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"`/proc/duet` cannot be made: .*--data-dir"):
        require_data_folder(Path("/proc/duet"))


@pytest.fixture
def of_somebody_else() -> Iterator[Path]:
    """A folder that its user may not write to, and one in it that is closed; root becomes somebody else meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "closed").mkdir(mode=0)
        folder.chmod(0o555)
        if os.geteuid() != 0:
            yield folder
            folder.chmod(0o755)
            return
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_a_folder_of_somebody_else_is_told(of_somebody_else: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not writable for this user"):
        require_data_folder(of_somebody_else)
    with pytest.raises(ConfigurationError, match="cannot be made: its parent is not writable"):
        require_data_folder(of_somebody_else / "new")


def test_a_folder_that_is_closed_to_this_user_is_told_before_it_is_looked_into(of_somebody_else: Path) -> None:
    closed = of_somebody_else / "closed"
    for folder in (closed, closed / "below"):
        with pytest.raises(ConfigurationError, match=f"`{folder}` is closed to this user: run this as the account"):
            is_locked(folder)


@pytest.mark.parametrize(
    "words",
    ["import tables --people p.csv", "up", "up --detach", "migrate", "status", "down", "logs serving", "env"],
)
def test_a_command_on_a_file_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").touch()
    Path("p.csv").write_text("user_id\n1\n")
    assert run(["--data-dir", "f", *words.split()]) == 1
    told = capsys.readouterr().err
    assert "The data folder `f` cannot be made: `f` is a file and no folder" in " ".join(told.split())
    assert "unexpected" not in told
