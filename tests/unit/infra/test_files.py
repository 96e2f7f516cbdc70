"""Files that are written whole."""

from pathlib import Path

from infra.files import write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_its_owners_alone_unless_more_is_said(tmp_path: Path) -> None:
    write_whole(tmp_path / "folder" / "f", b"mine")
    assert (tmp_path / "folder" / "f").stat().st_mode & 0o777 == 0o600
