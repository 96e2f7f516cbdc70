"""`duet import …` as typed: exit codes, the summary and one-sentence refusals."""

from pathlib import Path

import pytest

from infra.cli import run
from infra.endpoints import Endpoints


@pytest.fixture(autouse=True)
def _database(endpoints: Endpoints, connection: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", endpoints.database_url)
    monkeypatch.setenv("DUET_REDIS_URL", endpoints.redis_url)
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_a_clean_import_ends_with_0_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("user_id\n1\n2\n")
    (tmp_path / "i.csv").write_text("actor,target,kind,time,mood\n1,2,like,2026-01-01,fine\n")
    assert run(["import", "tables", "--people", "p.csv", "--interactions", "i.csv"]) == 0
    shown = capsys.readouterr()
    assert "landed new" in shown.out
    assert "no place for: `mood`" in shown.err


def test_an_import_with_quarantined_rows_ends_with_3_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.csv").write_text("user_id\n1\nx\n")
    assert run(["import", "tables", "--people", "p.csv"]) == 3
    shown = capsys.readouterr()
    assert "wrong_type: user_id" in shown.out
    assert len(list((tmp_path / "data" / "quarantine").glob("*.csv"))) == 1


def test_a_refused_file_ends_with_1_and_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("name\nx\n")
    assert run(["import", "tables", "--people", "p.csv"]) == 1
    assert "`p.csv` has no column `user_id`" in capsys.readouterr().err


def test_a_mapping_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id\n1\n")
    (tmp_path / "m.yaml").write_text("people: {user_id: id}\n")
    assert run(["import", "tables", "--people", "p.csv", "--mapping", "m.yaml"]) == 0


def test_a_world_is_imported_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "synthetic", "--people", "60", "--seed", "3", "--interactions-per-person", "4"]
    assert run([*words, "--days", "20", "--until", "2026-01-01"]) == 0
    assert run([*words, "--days", "20", "--until", "2026-01-01"]) == 0
    assert "2026-01-01T00:00:00+00:00, is already there" in capsys.readouterr().err


def test_a_file_that_is_not_the_experiment_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("a\n1\n")
    assert run(["import", "speed-dating", "p.csv"]) == 1
    assert "not the speed-dating experiment" in capsys.readouterr().err


def test_the_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "tables", "--help"]) == 0
    assert "3 when some were quarantined" in " ".join(capsys.readouterr().out.split())
