"""Results between steps, here and on other machines: written last, whole or not at all."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.errors import MissingUpstream, SharedFolderUnavailable
from pipelines.results.shared_folder import SharedFolder
from pipelines.results.store import KEEP, ResultStore, StepResult, combined_digest

AT = datetime(2026, 1, 1, tzinfo=UTC)


def here(folder: Path) -> ResultStore:
    return ResultStore(folder / "pipeline")


def sharing(folder: Path, shared: Path) -> ResultStore:
    return ResultStore(folder / "pipeline", SharedFolder(shared.as_uri()))


def files(results: ResultStore, asset: str, digest: str, content: str = "content") -> None:
    with results.staging(asset) as scratch:
        staged = scratch / "files"
        (staged / "inner").mkdir(parents=True)
        (staged / "inner" / "file").write_text(content)
        results.adopt(staged, asset, digest)


def finished(results: ResultStore, asset: str, digest: str, **more: object) -> StepResult:
    files(results, asset, digest)
    return results.publish(StepResult(asset=asset, digest=digest, run_id="r", as_of=AT, **more))  # type: ignore[arg-type]


def test_a_step_finds_what_an_earlier_run_made(tmp_path: Path) -> None:
    made = finished(here(tmp_path), "embeddings", "a" * 64, t0=AT, version=3, facts={"rows": 5})
    assert here(tmp_path).require("embeddings") == made
    assert (made.path / "inner" / "file").read_text() == "content"


def test_what_was_never_made_is_missed_in_one_sentence(tmp_path: Path) -> None:
    assert here(tmp_path).find("ranker") is None
    with pytest.raises(MissingUpstream, match=r"no `ranker` was made .* run the job `train_all` first"):
        here(tmp_path).require("ranker")


def test_a_pointer_to_deleted_files_counts_as_missing(tmp_path: Path) -> None:
    made = finished(here(tmp_path), "ranker", "b" * 64)
    (made.path / "inner" / "file").unlink()
    (made.path / "inner").rmdir()
    made.path.rmdir()
    assert here(tmp_path).find("ranker") is None
    with pytest.raises(MissingUpstream, match="the files of `ranker` bbbbbbbbbbbb are not in"):
        assert made.path


def test_a_result_without_files_needs_none(tmp_path: Path) -> None:
    here(tmp_path).publish(StepResult(asset="features", digest="f" * 64, run_id="r", as_of=AT, has_files=False))
    assert here(tmp_path).require("features").run_id == "r"


def test_a_killed_step_leaves_its_pointer_as_it_was(tmp_path: Path) -> None:
    results = here(tmp_path)
    before = finished(results, "people", "c" * 64)

    def killed() -> None:
        with results.staging("people") as scratch:
            (scratch / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        killed()
    assert results.find("people") == before
    assert list((tmp_path / "pipeline" / "people").glob(".staging-*")) == []


@pytest.mark.parametrize("shared", [False, True])
def test_old_results_go_but_not_those_that_something_still_builds_on(tmp_path: Path, *, shared: bool) -> None:
    results = sharing(tmp_path, tmp_path / "shared") if shared else here(tmp_path)
    folders = [tmp_path / "pipeline", *([tmp_path / "shared"] if shared else [])]
    wanted = finished(results, "interactions", "0" * 64)
    files(results, "embeddings_early", "9" * 64)
    finished(results, "embeddings", "e" * 64, inputs={"interactions": "0" * 64}, parts={"embeddings_early": "9" * 64})
    for number in range(1, KEEP + 4):
        finished(results, "interactions", f"{number:064x}"[::-1])
    for folder in folders:
        left = {path.name for path in (folder / "interactions").iterdir() if path.is_dir()}
        assert wanted.digest[:16] in left
        assert len(left) <= KEEP + 1
        assert (folder / "embeddings_early" / ("9" * 16)).is_dir()


def test_adopting_an_equal_result_keeps_the_first(tmp_path: Path) -> None:
    for content in ("first", "second"):
        files(here(tmp_path), "ranker", "d" * 64, content)
    assert (here(tmp_path).path("ranker", "d" * 64) / "inner" / "file").read_text() == "first"


def test_another_machine_finds_what_was_shared_and_fetches_it_once(tmp_path: Path) -> None:
    one, two = (sharing(tmp_path / name, tmp_path / "shared") for name in ("one", "two"))
    files(one, "embeddings_early", "9" * 64)
    finished(one, "embeddings", "e" * 64, parts={"embeddings_early": "9" * 64})
    found = two.require("embeddings")
    assert not two.directory("embeddings", "e" * 64).exists(), "a pointer alone fetches nothing"
    assert (found.path / "inner" / "file").read_text() == "content"
    assert found.path == two.directory("embeddings", "e" * 64)
    assert sorted(path.name for path in (found.path).rglob("*")) == ["file", "inner"]
    assert (two.path("embeddings_early", "9" * 64) / "inner" / "file").read_text() == "content"
    one.keep_note("tuned.json", b"{}")
    assert two.note("tuned.json") == b"{}"


def test_a_result_that_was_copied_by_half_is_none(tmp_path: Path) -> None:
    one, two = (sharing(tmp_path / name, tmp_path / "shared") for name in ("one", "two"))
    finished(one, "ranker", "d" * 64)
    (tmp_path / "shared" / "ranker" / ("d" * 16) / ".files.json").unlink()
    assert two.find("ranker") is None
    finished(one, "ranker", "d" * 64)  # the next attempt completes it
    assert two.require("ranker").path.is_dir()


def test_a_shared_folder_that_cannot_be_reached_is_named_in_one_sentence(tmp_path: Path) -> None:
    results = ResultStore(tmp_path, SharedFolder("nowhere://bucket/duet"))
    with pytest.raises(SharedFolderUnavailable, match=r"`nowhere://bucket/duet` cannot be reached: .*DUET_RESULTS_URI"):
        results.find("ranker")


def test_equal_parts_have_equal_digests_whatever_their_order() -> None:
    assert combined_digest({"a": 1, "b": 2}) == combined_digest({"b": 2, "a": 1})
    assert combined_digest({"a": 1}) != combined_digest({"a": 2})
