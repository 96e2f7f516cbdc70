"""Logs are cut before they fill the disk, and read without colours; folders of runs are pruned."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from infra.cli.app import build_app, run
from infra.cli.context import Invocation
from infra.person_names import PersonNames
from infra.settings import Settings
from infra.supervisor.errors import NoSuchLog
from infra.supervisor.upkeep import Upkeep, followed, prune, rotate


def test_a_log_is_cut_under_its_writer_and_the_last_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.log"
    with path.open("ab", buffering=0) as writer:  # as the processes have it open
        for number in range(5):
            writer.write(b"%d" % number * 20)
            assert rotate(path, 10, 2)
        writer.write(b"end")
        assert not rotate(path, 10, 2)
    assert path.read_bytes() == b"end"
    assert [(tmp_path / f"mlflow.log.{n}").read_bytes() for n in (1, 2)] == [b"4" * 20, b"3" * 20]
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_old_or_too_much_is_pruned_and_the_newest_stay(tmp_path: Path) -> None:
    for age, name in ((100, "ancient"), (30, "old"), (20, "older"), (10, "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page.html").write_bytes(b"x" * 5000)
        for path in (tmp_path / name / "page.html", tmp_path / name):
            os.utime(path, (time.time() - age, time.time() - age))
    size = sum(path.lstat().st_size for path in (tmp_path / "new", tmp_path / "new" / "page.html"))
    assert prune(tmp_path, 50, 2 * size) == ["old", "ancient"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "older"]
    assert prune(tmp_path / "nowhere", 50, 0) == []


def test_upkeep_rotates_and_prunes_by_the_settings(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, logging={"file_mb": 1, "files": 1}, upkeep={"days": 1, "mb": 1})
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "serving.log").write_bytes(b"x" * 2**21)
    (tmp_path / "data_docs" / "run").mkdir(parents=True)
    os.utime(tmp_path / "data_docs" / "run", (0, 0))
    Upkeep(settings).look()
    assert (tmp_path / "logs" / "serving.log").stat().st_size == 0
    assert list((tmp_path / "data_docs").iterdir()) == []


def test_the_name_that_the_log_has_for_a_person_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--data-dir", str(tmp_path), "log-name", "42"]) == 0
    assert capsys.readouterr().out.strip() == PersonNames.of(Settings(data_dir=tmp_path))(42)


def test_a_log_is_printed_without_colours_and_a_wrong_name_is_answered_with_the_right_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "dagster.log").write_text("one\n\x1b[32mtwo\x1b[0m\nthree\n")
    assert run(["--data-dir", str(tmp_path), "logs", "dagster", "-n", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"
    command = typer.main.get_command(build_app([]))
    with pytest.raises(NoSuchLog, match=r"no log is named `\.\./dagster`: there are dagster"):
        command.main(["--data-dir", str(tmp_path), "logs", "../dagster"], standalone_mode=False, obj=Invocation())


def test_a_log_is_followed_until_somebody_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "dagster.log"
    path.write_text("before\n")
    written = iter(["after\n", "and on\n"])

    def pause(_seconds: float) -> None:
        text = next(written, None)
        if text is None:
            raise KeyboardInterrupt
        with path.open("a") as log:
            log.write(text)

    monkeypatch.setattr("infra.supervisor.upkeep.time", SimpleNamespace(sleep=pause))
    assert run(["--data-dir", str(tmp_path), "logs", "dagster", "-f"]) == 130
    assert capsys.readouterr().out == "before\nafter\nand on\n"


def test_a_followed_log_goes_on_after_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("before, long\n")
    seen = followed(path, path.stat().st_size, every_s=0.01)
    with path.open("a") as log:
        log.write("after\n")
    assert next(seen) == "after\n"
    path.write_text("anew\n")
    assert next(seen) == "anew\n"
