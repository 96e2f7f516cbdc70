"""A server that no other account may reach listens in a folder of mode 0700 with a path that fits a socket."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import ConfigurationError
from infra.supervisor.sockets import LONGEST_BYTES, private_socket


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, with a short path."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    path.unlink()
    return True


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_a_socket_lies_in_the_data_folder_where_nobody_else_comes_in(temporary: Path) -> None:
    path = private_socket(temporary / "data", "code")
    assert path == temporary / "data" / "sockets" / "code"
    assert mode(path.parent) == 0o700
    path.parent.chmod(0o755)
    assert private_socket(temporary / "data", "code") == path
    assert mode(path.parent) == 0o700
    assert listens(path)


def test_a_path_just_short_enough_stays_and_one_byte_more_moves_to_the_folder_for_temporary_files(
    temporary: Path,
) -> None:
    rest = LONGEST_BYTES - len(f"{temporary}//sockets/code")
    fits, long = temporary / ("d" * rest), temporary / ("d" * (rest + 1))
    inside = private_socket(fits, "code", run=temporary / "none")
    assert inside.is_relative_to(fits)
    assert listens(inside)
    outside = private_socket(long, "code", run=temporary / "none")
    assert outside.parent.parent == temporary
    assert mode(outside.parent) == 0o700
    assert private_socket(long, "code", run=temporary / "none") == outside
    assert private_socket(temporary / ("e" * (rest + 1)), "code", run=temporary / "none") != outside
    assert listens(outside)


@pytest.mark.parametrize("name", ["with a blank", "half 50%", "d" * 100])
def test_the_account_s_own_folder_of_the_system_comes_before_the_one_for_everybody(temporary: Path, name: str) -> None:
    own = temporary / "run" / str(os.geteuid())
    own.mkdir(parents=True)
    path = private_socket(temporary / name, "code", run=temporary / "run")
    assert path.parent.parent == own
    assert mode(path.parent) == 0o700


@pytest.mark.parametrize("planted", ["open", "link"])
def test_a_folder_that_others_could_enter_is_refused(temporary: Path, planted: str) -> None:
    data, none = temporary / ("d" * 100), temporary / "none"
    folder = private_socket(data, "code", run=none).parent
    if planted == "open":
        folder.chmod(0o711)
    else:
        folder.rename(temporary / "elsewhere")
        folder.symlink_to(temporary / "elsewhere")
    with pytest.raises(ConfigurationError, match="not a folder that only this account may enter: remove it"):
        private_socket(data, "code", run=none)


def test_where_no_path_is_short_enough_the_setting_is_named(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / ("t" * 90)))
    with pytest.raises(ConfigurationError, match="too long or too unusual for a socket: set `TMPDIR`"):
        private_socket(temporary / ("d" * 100), "code", run=temporary / "none")
