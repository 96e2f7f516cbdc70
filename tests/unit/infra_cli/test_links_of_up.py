"""`duet up` prints the links that let a browser in, each whole on a line of its own, and to no log."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.cli.app import run
from infra.settings import Settings
from infra.supervisor.state import Phase, PlatformState, ServicePhase, ServiceState

TOKEN = "planted-token-" * 8
LINKS = [f"{name} http://127.0.0.1:{port}/?token={TOKEN}" for name, port in (("dagster", 3000), ("mlflow", 5000))]


@pytest.fixture(autouse=True)
def _running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = {"dagster": 3000, "mlflow": 5000, "serving": 8000}
    services = {
        name: ServiceState(name=name, phase=ServicePhase.HEALTHY, url=f"http://127.0.0.1:{port}")
        for name, port in ports.items()
    }
    state = PlatformState(data_dir=tmp_path, pid=1, identity="me", phase=Phase.RUNNING, services=services)

    def run_platform(_settings: Settings, *, on_ready: Callable[[PlatformState], None], **_more: object) -> None:
        on_ready(state)

    monkeypatch.setattr("infra.supervisor.platform.run_platform", run_platform)
    monkeypatch.setattr("infra.supervisor.platform.start_in_background", lambda *_, **_more: state)
    monkeypatch.setenv("DUET_WEB__TOKEN", TOKEN)


def links_of(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if "token" in line]


@pytest.mark.parametrize(("auth", "expected"), [("required", LINKS), ("off", [])])
def test_a_platform_in_the_background_is_told_with_its_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], auth: str, expected: list[str]
) -> None:
    monkeypatch.setenv("DUET_WEB__AUTH", auth)
    assert run(["--data-dir", str(tmp_path), "up", "--detach"], entries=[]) == 0
    assert links_of(capsys.readouterr().out) == expected


@pytest.mark.parametrize(("terminal", "expected"), [(True, LINKS), (False, [])])
def test_a_platform_in_the_foreground_shows_its_links_to_a_person_and_to_no_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,  # noqa: FBT001
    expected: list[str],
) -> None:
    monkeypatch.setenv("DUET_WEB__AUTH", "required")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert run(["--data-dir", str(tmp_path), "up"], entries=[]) == 0
    assert links_of(capsys.readouterr().out) == expected
