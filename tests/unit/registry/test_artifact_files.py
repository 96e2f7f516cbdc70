"""Artefact directories: complete or absent, verified or refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from registry.contracts import ArtifactKind, Manifest, ReleaseVersions, canonical_json
from registry.errors import ArtifactConflict, CorruptArtifact, UnknownVersion, UnsupportedArtifact
from registry.models.arrays import npy_writer, npz_writer, read_npy, read_npz
from registry.models.artifacts import read_manifest, verify_artifact, write_artifact


def write(directory: Path, text: str = "hello", **kwargs: object) -> Manifest:
    return write_artifact(
        directory,
        ArtifactKind.RANKER,
        {
            "model.txt": lambda path: path.write_text(text) and None,
            "other.txt": lambda path: path.write_text("x") and None,
        },
        parameters={"alpha": 1.5},
        lineage={"code_version": "1"},
        **kwargs,  # type: ignore[arg-type]
    )


def test_what_was_written_verifies(tmp_path: Path) -> None:
    manifest = write(tmp_path / "a")
    assert verify_artifact(tmp_path / "a", manifest.digest) == manifest
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"manifest.json", "model.txt", "other.txt"}


def test_equal_inputs_give_equal_digests_whatever_was_measured(tmp_path: Path) -> None:
    first = write(tmp_path / "a", metrics={"build_s": 1.0})
    second = write(tmp_path / "b", metrics={"build_s": 2.0})
    assert first.digest == second.digest


def test_any_change_of_bytes_or_lineage_changes_the_digest(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    assert write(tmp_path / "b", "other text").digest != first.digest
    assert first.model_copy(update={"lineage": {"code_version": "2"}}).digest != first.digest


def test_the_same_artefact_is_reused_and_another_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    assert write(tmp_path / "a").digest == first.digest
    with pytest.raises(ArtifactConflict, match="already holds artefact"):
        write(tmp_path / "a", "something else")
    assert verify_artifact(tmp_path / "a") == first
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "nothing temporary is left"


def test_a_writer_that_dies_leaves_nothing(tmp_path: Path) -> None:
    def die(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_artifact(tmp_path / "a", ArtifactKind.INDEX, {"index.bin": die})
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_writing_leaves_no_artefact_and_a_second_run_completes(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from registry.models.artifacts import write_artifact
from registry.contracts import ArtifactKind

def die(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_artifact(Path(sys.argv[1]), ArtifactKind.RANKER, {"model.txt": die})
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    assert verify_artifact(tmp_path / "a", write(tmp_path / "a").digest)


def test_an_unfinished_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.txt").write_text("half")
    write(tmp_path / "a")
    assert (tmp_path / "a" / "model.txt").read_text() == "hello"


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path) -> None:
    for name, age_s in (("old", 90_000), ("fresh", 60)):
        left = tmp_path / f".staging-{name}"
        left.mkdir()
        (left / "half.bin").write_bytes(b"x")
        born = tmp_path.stat().st_mtime - age_s
        os.utime(left, (born, born))
    write(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".staging-fresh", "a"]


def test_a_target_that_is_a_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OSError, match="a"):
        write(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


def test_a_truncated_file_is_named_with_its_size(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "model.txt").write_text("hel")
    with pytest.raises(CorruptArtifact, match=r"model\.txt` has 3 bytes, expected 5"):
        verify_artifact(tmp_path / "a")


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "model.txt").write_text("hellp")
    with pytest.raises(CorruptArtifact, match=r"model\.txt` has sha256 [0-9a-f]{64}, expected"):
        verify_artifact(tmp_path / "a")


def test_a_missing_file_and_a_link_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "model.txt").unlink()
    with pytest.raises(CorruptArtifact, match="missing or not a plain file"):
        verify_artifact(tmp_path / "a")
    (tmp_path / "elsewhere").write_text("hello")
    (tmp_path / "a" / "model.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtifact, match="missing or not a plain file"):
        verify_artifact(tmp_path / "a")


def test_files_that_the_manifest_does_not_name_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "evil.pickle").write_bytes(b"\x80")
    verify_artifact(tmp_path / "a")


def test_another_digest_than_expected_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(CorruptArtifact, match="expected ffff"):
        verify_artifact(tmp_path / "a", "f" * 64)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format":1,"kind":"ranker","files":{}}'], ids=repr
)
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptArtifact, match="is not a manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../up.txt", "/etc/passwd", "a/b.txt", "UPPER.txt", "manifest.json", "", "a\x00b"])
def test_a_manifest_that_names_a_path_is_refused(tmp_path: Path, name: str) -> None:
    manifest = write(tmp_path / "a").model_dump(mode="json")
    manifest["files"][name] = {"sha256": "0" * 64, "size": 0}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtifact, match="plain lower-case file name"):
        verify_artifact(tmp_path / "a")


def test_a_manifest_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(CorruptArtifact, match="larger than"):
        read_manifest(tmp_path)


def test_another_kind_or_format_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path / "a")
    with pytest.raises(UnsupportedArtifact, match="kind `ranker` where `index`"):
        manifest.expect(ArtifactKind.INDEX)
    with pytest.raises(UnsupportedArtifact, match="format 2"):
        manifest.model_copy(update={"format": 2}).expect(ArtifactKind.RANKER)


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == b'{"a":[1,2],"b":1}'


def test_release_ids_are_read_back() -> None:
    versions = ReleaseVersions(3, 5, 2)
    assert versions.release_id == "e3-i5-r2"
    assert ReleaseVersions.parse("e3-i5-r2") == versions
    for wrong in ("", "e3", "e0-i1-r1", "e3-i5-r2; drop table", "e3-i5-r2\n"):
        with pytest.raises(UnknownVersion, match="is not a release id"):
            ReleaseVersions.parse(wrong)


def test_arrays_of_another_type_are_refused(tmp_path: Path) -> None:
    npy_writer(np.arange(3))(tmp_path / "a.npy")
    assert read_npy(tmp_path / "a.npy", np.int64, 1).tolist() == [0, 1, 2]
    with pytest.raises(CorruptArtifact, match="another type or shape"):
        read_npy(tmp_path / "a.npy", np.float32, 1)
    npz_writer({"x": np.zeros(2, np.float32)})(tmp_path / "b.npz")
    with pytest.raises(CorruptArtifact, match="does not hold the arrays y"):
        read_npz(tmp_path / "b.npz", {"y": (np.float32, 1)})


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptArtifact, match="is not a NumPy file"):
        read_npy(tmp_path / "evil.npy", np.int64, 1)


def test_equal_arrays_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        npz_writer({"x": np.arange(5, dtype=np.float32)})(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
