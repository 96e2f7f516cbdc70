"""Pointers between steps: written last, whole or not at all."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.errors import MissingUpstream
from pipelines.state import KEEP, Current, PipelineState, combined_digest, write_atomically

AT = datetime(2026, 1, 1, tzinfo=UTC)


def finished(state: PipelineState, asset: str, digest: str, **more: object) -> Current:
    path = state.directory(asset, digest)
    path.mkdir(parents=True, exist_ok=True)
    current = Current(asset=asset, path=path, digest=digest, run_id="r", as_of=AT, **more)  # type: ignore[arg-type]
    return state.publish(current)


def test_a_step_finds_what_an_earlier_run_made(tmp_path: Path) -> None:
    made = finished(PipelineState(tmp_path), "embeddings", "a" * 64, t0=AT, version=3, facts={"rows": 5})
    assert PipelineState(tmp_path).require("embeddings") == made


def test_what_was_never_made_is_missed_in_one_sentence(tmp_path: Path) -> None:
    state = PipelineState(tmp_path)
    assert state.find("ranker") is None
    with pytest.raises(MissingUpstream, match=r"no `ranker` was made .* run the job `train_all` first"):
        state.require("ranker")


def test_a_pointer_to_deleted_files_counts_as_missing(tmp_path: Path) -> None:
    state = PipelineState(tmp_path)
    finished(state, "ranker", "b" * 64).path.rmdir()
    assert state.find("ranker") is None


def test_a_killed_step_leaves_its_pointer_as_it_was(tmp_path: Path) -> None:
    state = PipelineState(tmp_path)
    before = finished(state, "people", "c" * 64)

    def killed() -> None:
        with state.staging("people") as scratch:
            (scratch / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        killed()
    assert state.find("people") == before
    assert list((tmp_path / "pipeline" / "people").glob(".staging-*")) == []


def test_old_results_go_but_not_those_that_something_still_builds_on(tmp_path: Path) -> None:
    state = PipelineState(tmp_path)
    wanted = finished(state, "interactions", "0" * 64)
    finished(state, "embeddings", "e" * 64, inputs={"interactions": "0" * 64})
    for number in range(1, KEEP + 4):
        finished(state, "interactions", f"{number:064x}"[::-1])
    left = {path.name for path in (tmp_path / "pipeline" / "interactions").iterdir() if path.is_dir()}
    assert wanted.path.name in left
    assert len(left) <= KEEP + 1


def test_adopting_an_equal_result_keeps_the_first(tmp_path: Path) -> None:
    state = PipelineState(tmp_path)
    for content in ("first", "second"):
        with state.staging("ranker") as scratch:
            staged = scratch / "artifact"
            staged.mkdir()
            (staged / "file").write_text(content)
            place = state.adopt(staged, "ranker", "d" * 64)
    assert (place / "file").read_text() == "first"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_parts_have_equal_digests_whatever_their_order() -> None:
    assert combined_digest({"a": 1, "b": 2}) == combined_digest({"b": 2, "a": 1})
    assert combined_digest({"a": 1}) != combined_digest({"a": 2})
