"""A full disk ends neither the watching nor, at the end, the stopping; and what would fill the disk is kept small."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest
from structlog.testing import capture_logs

from infra.settings import Settings
from infra.supervisor import upkeep
from infra.supervisor.asking import Asker, HealthQuestion
from infra.supervisor.platform import run_platform
from infra.supervisor.processes import marked
from infra.supervisor.spec import External, Service, Spec
from infra.supervisor.state import (
    Phase,
    PlatformState,
    ServicePhase,
    ServiceState,
    logs_dir,
    mark_of,
    platform_dir,
    read_state,
)
from tests.waiting import until


@contextmanager
def one_process(_settings: Settings) -> Iterator[tuple[list[Spec], list[External]]]:
    yield [Service("web", (sys.executable, "-c", "import time; time.sleep(300)"), stop_grace_s=5.0)], []


def refuse_state(data_dir: Path) -> None:
    """Let every write of the state fail from now on, also those of root."""
    path = platform_dir(data_dir) / "state.json"
    path.unlink()
    path.mkdir()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.supervisor.platform.TICK_S", 0.01)
    monkeypatch.setattr("infra.supervisor.backoff.FIRST_S", 0.001)


def test_processes_are_watched_and_at_the_end_stopped_though_the_state_cannot_be_written(tmp_path: Path) -> None:
    seen: list[ServicePhase] = []

    def report(service: ServiceState) -> None:
        seen.append(service.phase)
        if seen.count(ServicePhase.HEALTHY) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if service.phase is ServicePhase.STOPPED:
            (platform_dir(tmp_path) / "state.json").rmdir()

    def ready(state: PlatformState) -> None:
        refuse_state(tmp_path)
        os.kill(state.services["web"].pid or 0, signal.SIGKILL)

    with capture_logs() as logged:
        run_platform(Settings(data_dir=tmp_path), report=report, on_ready=ready, stack=one_process)
    assert seen[-4:] == [ServicePhase.DIED, ServicePhase.STARTING, ServicePhase.HEALTHY, ServicePhase.STOPPED]
    assert marked(mark_of(tmp_path)) == []
    assert {line["event"] for line in logged} == {"state_not_written"}


def test_what_nobody_expected_ends_everything_and_is_kept_as_the_reason(tmp_path: Path) -> None:
    def surprise(_state: PlatformState) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_platform(Settings(data_dir=tmp_path), on_ready=surprise, stack=one_process)
    assert marked(mark_of(tmp_path)) == []
    state = read_state(tmp_path)
    assert state is not None
    assert (state.phase, state.reason) == (Phase.FAILED, "OSError: [Errno 28] No space left on device")


def test_processes_are_stopped_though_neither_the_end_nor_its_reason_can_be_written(tmp_path: Path) -> None:
    pids: list[int] = []

    def surprise(state: PlatformState) -> None:
        pids.append(state.services["web"].pid or 0)
        refuse_state(tmp_path)
        raise ValueError("what nobody expected")

    with pytest.raises(ValueError, match="what nobody expected"):
        run_platform(Settings(data_dir=tmp_path), on_ready=surprise, stack=one_process)
    assert not psutil.pid_exists(pids[0])


def test_a_running_platform_cuts_its_logs(tmp_path: Path) -> None:
    log = logs_dir(tmp_path) / "mlflow.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * 2**21)

    def end_once_it_is_cut() -> None:
        try:
            until(lambda: log.stat().st_size == 0, within_s=20.0)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watching = Thread(target=end_once_it_is_cut)
    settings = Settings(data_dir=tmp_path, logging={"file_mb": 1})
    run_platform(settings, on_ready=lambda _: watching.start(), stack=one_process)
    watching.join()
    assert log.stat().st_size == 0


def test_a_report_that_cannot_be_printed_ends_nothing(tmp_path: Path) -> None:
    def report(service: ServiceState) -> None:
        raise OSError(28, f"No space left for {service.name}")

    def ready(_state: PlatformState) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    run_platform(Settings(data_dir=tmp_path), report=report, on_ready=ready, stack=one_process)
    assert read_state(tmp_path) is None


def test_a_probe_that_cannot_ask_is_a_refusal() -> None:
    class Broken:
        def check(self) -> str | None:
            raise OSError(24, "Too many open files")

    asker, heard = Asker(), []
    asker.ask({HealthQuestion("web", "ready", 1): (Broken(), 5.0)})
    until(lambda: heard.extend(refusal for _, refusal in asker.answers()) or heard)  # type: ignore[func-returns-value]
    asker.close()
    assert heard == ["it cannot be asked: OSError: [Errno 24] Too many open files"]


def test_what_cannot_be_removed_is_left_and_the_rest_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kept", "old"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 as Path has it
        if path.name == "kept":
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert upkeep.prune(tmp_path, 50, 1000) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
