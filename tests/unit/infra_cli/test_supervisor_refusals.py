import os
import sys
from pathlib import Path

import pytest
import typer

from infra.cli import build_app, run
from infra.cli.demo import _refusal, _release_in, _Steps
from infra.cli.errors import DemoFailed
from infra.settings import Settings
from infra.supervisor import platform
from infra.supervisor.errors import (
    PlatformNotRunning,
    PlatformNotStopped,
    ServiceDied,
    ServiceNotHealthy,
    StartInterrupted,
    StepFailed,
)
from infra.supervisor.processes import describe_exit, tail
from infra.supervisor.spec import External, Service, Spec, Step, TcpProbe
from infra.supervisor.state import Phase, PlatformState, ServicePhase, platform_lock
from infra.supervisor.supervisor import REVIVALS, Supervisor


class Sick:
    """A probe that finds nothing well."""

    def check(self) -> str | None:
        return "it coughs"


def supervise(data_dir: Path, *specs: Spec, stop: bool = False) -> None:
    state = PlatformState(data_dir=data_dir, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state, should_stop=lambda: stop)
    try:
        supervisor.start(specs)
    finally:
        supervisor.stop()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_service_that_ends_has_died(tmp_path: Path) -> None:
    with pytest.raises(ServiceDied, match=r"^web ended with exit code 7; its log is .*web\.log and ends: no port$"):
        supervise(tmp_path, Service("web", python("print('no port'); raise SystemExit(7)"), probe=Sick()))


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServiceDied, match=r"web cannot be started: /no/such/program: No such file"):
        supervise(tmp_path, Service("web", ("/no/such/program",)))


def test_a_service_that_stays_sick_is_given_up_with_the_reason(tmp_path: Path) -> None:
    sleepy = Service("web", python("import time; time.sleep(60)"), probe=Sick(), start_timeout_s=0.3, stop_grace_s=1)
    with pytest.raises(ServiceNotHealthy, match=r"web is not healthy after 0.3 s: it coughs; its log is "):
        supervise(tmp_path, sleepy)


def test_a_step_that_fails_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="prepare ended with exit code 1"):
        supervise(tmp_path, Step("prepare", python("raise SystemExit(1)")))


def test_a_start_can_be_interrupted(tmp_path: Path) -> None:
    with pytest.raises(StartInterrupted):
        supervise(tmp_path, Service("web", python("pass")), stop=True)


def test_an_order_that_cannot_be_is_a_mistake_of_the_programmer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`web` must be unique and come after"):
        supervise(tmp_path, Service("web", python("pass"), after=("database",)))


def test_a_database_that_dies_is_started_again_visibly_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.supervisor.supervisor.PROBE_EVERY_S", 0.0)
    revived: list[str] = []
    seen: list[str] = []
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state, report=lambda s: seen.append(s.detail or s.phase.value))
    supervisor.start([], [External("postgres", Sick(), "postgresql://here", revive=lambda: revived.append("again"))])
    for _ in range(20):
        supervisor.watch()
    assert len(revived) == REVIVALS
    assert f"it did not answer and was started again (1 of {REVIVALS} times)" in seen
    assert state.phase is Phase.DEGRADED
    assert state.services["postgres"].phase is ServicePhase.UNHEALTHY


def test_status_without_a_platform_is_an_error(tmp_path: Path) -> None:
    command = typer.main.get_command(build_app([]))
    with pytest.raises(PlatformNotRunning, match="start one with `duet up`"):
        command.main(["--data-dir", str(tmp_path), "status"], standalone_mode=False)


def test_processes_that_keep_coming_back_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(platform, "sweep", lambda *_args, **_more: [4711])
    monkeypatch.setattr(platform, "open_endpoints", lambda _settings: Nothing())
    with pytest.raises(PlatformNotStopped, match="4711"):
        platform.stop_platform(Settings(data_dir=tmp_path))


def test_a_failing_step_of_the_demo_prints_its_command_and_its_last_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = _Steps(Settings(data_dir=tmp_path))
    with pytest.raises(DemoFailed, match=r"status` ended with exit code 1; the log is .*demo\.log"):
        steps.run("look", "status")
    printed = capsys.readouterr().err
    assert f"✗ look: duet --data-dir {tmp_path} status" in printed
    assert "│ error: no platform runs on" in printed


def test_the_demo_leaves_a_platform_alone_that_runs_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with platform_lock(tmp_path):
        assert run(["--data-dir", str(tmp_path), "demo", "--exit"], entries=[]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: a platform already runs on {tmp_path}")
    assert "stopping everything" not in printed


def test_the_demo_waits_for_the_release_that_was_promoted(tmp_path: Path) -> None:
    assert _release_in("promoted e1-i1-r1 -> e2-i3-r12 to Production") == "e2-i3-r12"
    assert _release_in("nothing new") is None
    refusal = _refusal(Settings(data_dir=tmp_path, serving={"port": 1}), "e2-i3-r12")  # type: ignore[arg-type]
    assert refusal == "no health report (ConnectError)"


def test_the_way_a_process_ended_is_said_in_words() -> None:
    assert describe_exit(2) == "exit code 2"
    assert describe_exit(-9) == "signal SIGKILL"
    assert describe_exit(-99) == "signal 99"


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "big.log"
    log.write_text("\n".join(f"line {number}" for number in range(5000)))
    assert tail(log, 2) == "line 4998\nline 4999"
    assert tail(tmp_path / "none.log") == ""


def test_a_port_without_a_listener_accepts_no_connection() -> None:
    refusal = TcpProbe("127.0.0.1", 1).check()
    assert refusal == "127.0.0.1:1 accepts no connection (Connection refused)"
