import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli import checks, run
from infra.endpoints import Endpoints
from tests.integration.cli.test_stack import answering


@pytest.fixture(autouse=True)
def configured(endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUET_DATABASE_URL", endpoints.database_url)
    monkeypatch.setenv("DUET_REDIS_URL", endpoints.redis_url)
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "data"))
    for group in ("DAGSTER", "SERVING", "MLFLOW"):
        monkeypatch.setenv(f"DUET_{group}__PORT", "0")
    # What this machine happens to have left is not the subject here.
    monkeypatch.setattr(checks, "LEAST_RAM_GIB", 0.01)
    monkeypatch.setattr(checks, "LEAST_DISK_GIB", 0.01)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def diagnose(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, checks.CheckResult]]:
    code = run(["doctor", "--json"], entries=[])
    found = [checks.CheckResult(**finding) for finding in json.loads(capsys.readouterr().out)]
    return code, {finding.name: finding for finding in found}


def test_a_healthy_machine_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = diagnose(capsys)
    # One core or no bytecode is a fair complaint about the machine that runs this test.
    assert [f for f in found.values() if not f.ok and f.name not in {"processor cores", "compiled bytecode"}] == []
    assert code in {0, 1}
    assert {
        "Python",
        "packages",
        "Postgres",
        "database schema",
        "Postgres connections",
        "Redis",
        "MLflow",
    } <= found.keys()
    assert "dagster 1." in found["packages"].seen


def test_the_report_for_a_person_has_a_mark_per_check(capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor"], entries=[])
    assert "✓ Python: 3." in capsys.readouterr().out


def test_a_taken_port_comes_with_a_remedy(
    taken_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_SERVING__PORT", str(taken_port))
    code, found = diagnose(capsys)
    assert code == 1
    assert found["port of serving"].seen == f"{taken_port} is taken"
    assert "DUET_SERVING__PORT" in found["port of serving"].remedy


def test_a_package_below_its_floor_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "requires", lambda _: ["dagster>=99", "no-such-package", "rich>=1"])
    code, found = diagnose(capsys)
    assert code == 1
    assert "instead of >=99; no-such-package is missing" in found["packages"].seen


def test_a_secret_that_others_can_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / ".env"
    secret.write_text("")
    secret.chmod(0o644)
    code, found = diagnose(capsys)
    assert code == 1
    assert found["secrets"].remedy == "chmod 600 .env"


def test_pools_that_ask_for_more_than_the_database_allows_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_SERVING__WORKERS", "64")
    code, found = diagnose(capsys)
    assert code == 1
    assert "64 workers x (10 + 20 + 3 in the background) = 2112, " in found["Postgres connections"].seen


def test_a_database_that_cannot_be_reached_is_a_finding_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUET_DATABASE_URL", "postgresql://duet:planted-password@127.0.0.1:1/duet")
    code, found = diagnose(capsys)
    assert code == 1
    assert not found["servers"].ok
    assert "planted-password" not in found["servers"].seen


def test_migrate_says_where_the_database_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate"], entries=[]) == 0
    assert "the database is at the newest version" in capsys.readouterr().out


def test_going_back_asks_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert run(["migrate", "--down-to", "base"], entries=[]) == 130
    assert "can delete rows for good" in capsys.readouterr().out


def test_doors_that_no_token_shuts_are_told_with_what_shuts_them() -> None:
    with answering({}) as dagster, answering({}, status=401) as mlflow:
        found = checks.doors({"dagster": dagster, "mlflow": mlflow})
        assert (found.ok, found.seen) == (False, "no token is asked for by dagster")
        assert "`duet down` and `duet up`" in found.remedy
        assert checks.doors({"mlflow": mlflow}).ok
    assert checks.doors({"dagster": dagster}).ok, "who does not answer lets nobody in"
