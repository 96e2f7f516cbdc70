import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError

import psutil
import pytest
import typer

from infra.cli import build_app, run
from infra.cli.demo import _refusal, _release_in, _Steps
from infra.cli.errors import DemoFailed
from infra.errors import ServerUnavailable
from infra.settings import Settings
from infra.supervisor import platform
from infra.supervisor.backoff import Backoff
from infra.supervisor.child import Child
from infra.supervisor.errors import (
    PlatformNotRunning,
    PlatformNotStopped,
    ServiceDied,
    ServiceNotHealthy,
    StartInterrupted,
    StepFailed,
)
from infra.supervisor.processes import clear, describe_exit, spawn, sweep, tail
from infra.supervisor.spec import External, Service, Spec, StartStep, TcpProbe
from infra.supervisor.state import Phase, PlatformState, ServicePhase, platform_lock
from infra.supervisor.supervisor import Supervisor


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


def test_a_service_that_stays_sick_is_given_up_with_the_reason_and_the_setting(tmp_path: Path) -> None:
    sleepy = Service(
        "web",
        python("import time; time.sleep(60)"),
        probe=Sick(),
        start_timeout_s=0.3,
        limit_setting="DUET_WEB",
        stop_grace_s=1,
    )
    expected = r"web is not healthy after \d+ s, .* without progress: it coughs; its log is .*; DUET_WEB \(0.3 s\) sets"
    with pytest.raises(ServiceNotHealthy, match=expected):
        supervise(tmp_path, sleepy)


def test_a_step_that_fails_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="prepare ended with exit code 1"):
        supervise(tmp_path, StartStep("prepare", python("raise SystemExit(1)")))


def test_a_start_can_be_interrupted(tmp_path: Path) -> None:
    with pytest.raises(StartInterrupted):
        supervise(tmp_path, Service("web", python("pass")), stop=True)


def test_an_order_that_cannot_be_is_a_mistake_of_the_programmer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`web` must be unique and come after"):
        supervise(tmp_path, Service("web", python("pass"), after=("database",)))


def watch_until(supervisor: Supervisor, claim: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline, "it never became true"
        supervisor.watch()
        time.sleep(0.005)


def test_a_database_that_keeps_dying_is_started_again_visibly_and_without_a_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.supervisor.supervisor.PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("infra.supervisor.backoff.FIRST_S", 0.001)
    revived: list[str] = []
    seen: list[str] = []
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state, report=lambda s: seen.append(s.detail or s.phase.value))
    supervisor.start([], [External("postgres", Sick(), "postgresql://here", revive=lambda: revived.append("again"))])
    watch_until(supervisor, lambda: len(revived) >= 5)
    watch_until(supervisor, lambda: state.services["postgres"].phase is ServicePhase.UNHEALTHY)
    supervisor.stop()
    assert "it did not answer and was started again" in seen
    assert state.phase is Phase.DEGRADED
    assert state.services["postgres"].detail == "it coughs"


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (ServerUnavailable("the disk is full."), "the disk is full."),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device."),
        (CalledProcessError(1, ["sh"]), "CalledProcessError: Command '['sh']' returned non-zero exit status 1."),
    ],
    ids=lambda case: type(case).__name__,
)
def test_a_database_that_cannot_be_started_is_tried_again_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, why: str
) -> None:
    monkeypatch.setattr("infra.supervisor.supervisor.PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("infra.supervisor.backoff.FIRST_S", 0.001)
    tries: list[str] = []

    def revive() -> None:
        tries.append("again")
        if len(tries) < 3:
            raise failure

    seen: list[str] = []
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state, report=lambda s: seen.append(s.detail or s.phase.value))
    supervisor.start([], [External("redis", Sick(), "redis://here", revive=revive)])
    watch_until(supervisor, lambda: len(tries) >= 4)
    supervisor.stop()
    assert seen.count(f"cannot be started again: {why} The next try is in 0 s.") == 2


class Cough:
    """A probe that is well until it is told to cough."""

    def __init__(self) -> None:
        self.coughs = False

    def check(self) -> str | None:
        return "it coughs" if self.coughs else None


def test_a_process_that_hangs_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.supervisor.supervisor.PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("infra.supervisor.supervisor.HUNG_AFTER_S", 0.2)
    probe = Cough()
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state)
    web = Service("web", python("import time; time.sleep(300)"), probe=probe, alive=probe)
    try:
        supervisor.start([web])
        first = state.services["web"].pid
        probe.coughs = True
        watch_until(supervisor, lambda: state.services["web"].phase is ServicePhase.DIED)
        detail = state.services["web"].detail or ""
        assert detail.endswith("and was ended: it coughs; it is started again in 1 s")
        probe.coughs = False
        watch_until(supervisor, lambda: state.services["web"].phase is ServicePhase.HEALTHY)
        assert state.services["web"].pid not in {None, first}
    finally:
        supervisor.stop()


@pytest.mark.parametrize("hung_after_s", [0.0, 3600.0], ids=["it lives", "it may hang for longer"])
def test_a_process_that_is_not_ready_but_lives_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hung_after_s: float
) -> None:
    monkeypatch.setattr("infra.supervisor.supervisor.PROBE_EVERY_S", 0.0)
    monkeypatch.setattr("infra.supervisor.supervisor.HUNG_AFTER_S", 0.0)
    ready = Cough()
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state)
    try:
        alive = ready if hung_after_s else Cough()
        command = python("import time; time.sleep(300)")
        supervisor.start([Service("web", command, probe=ready, alive=alive, hung_after_s=hung_after_s)])
        first = state.services["web"].pid
        ready.coughs = True
        watch_until(supervisor, lambda: state.services["web"].phase is ServicePhase.UNHEALTHY)
        for _ in range(50):
            supervisor.watch()
        ready.coughs = False
        watch_until(supervisor, lambda: state.services["web"].phase is ServicePhase.HEALTHY)
        assert state.services["web"].pid == first
    finally:
        supervisor.stop()


def test_a_process_that_became_healthy_is_not_silent_since_its_start(tmp_path: Path) -> None:
    child = Child(Service("web", python("pass")), tmp_path / "web.log")
    child.heard("it starts")
    child.became_healthy()
    assert child.heard("an answer from before that") == 0.0


def test_a_start_that_takes_longer_than_its_limit_is_waited_for_while_it_makes_progress(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = (
        "import pathlib, sys, time\n"
        "for n in range(26):\n print('loaded', n, flush=True); time.sleep(0.1)\n"
        f"pathlib.Path({str(done)!r}).touch(); time.sleep(300)"
    )
    seen: list[str] = []
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state, report=lambda s: seen.append(s.detail or s.phase.value))
    try:
        # Twenty times the pause between two signs of progress: a machine that stands still for a while is no silence.
        slow = Service("web", python(code), probe=Exists(done), start_timeout_s=2, limit_setting="DUET_SLOW")
        supervisor.start([slow])
    finally:
        supervisor.stop()
    assert "takes longer than 2 s (DUET_SLOW), but makes progress: it is not there" in seen
    assert "healthy" in seen


class Exists:
    """A probe that is well once a file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> str | None:
        return None if self.path.exists() else "it is not there"


def test_a_step_is_done_again_after_the_restart_of_the_process_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.supervisor.backoff.FIRST_S", 0.001)
    done = tmp_path / "done"
    note = f"open({str(done)!r}, 'a').write('x')"
    state = PlatformState(data_dir=tmp_path, pid=os.getpid(), identity="me")
    supervisor = Supervisor(state)
    try:
        web = Service("web", python("import time; time.sleep(300)"), again=("tidy",))
        supervisor.start([web, StartStep("tidy", python(note), after=("web",))])
        pid = state.services["web"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        watch_until(supervisor, lambda: done.read_text() == "xx")
        watch_until(supervisor, lambda: state.phase is Phase.RUNNING)
    finally:
        supervisor.stop()


def test_what_a_dead_process_left_behind_is_killed_unless_it_must_outlive_it(tmp_path: Path) -> None:
    born = tmp_path / "born"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "words = ['worker', 'helper']\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(300)']\n"
        "pids = [subprocess.Popen([*sleep, w], start_new_session=True).pid for w in words]\n"
        f"pathlib.Path({str(born)!r} + '.tmp').write_text(' '.join(map(str, pids)))\n"
        f"pathlib.Path({str(born)!r} + '.tmp').rename({str(born)!r}); time.sleep(300)"
    )
    process = spawn(python(code), mark=str(tmp_path), environment={}, log_path=tmp_path / "log", name="web")
    try:
        deadline = time.monotonic() + 60
        while not born.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        worker, helper = (psutil.Process(int(pid)) for pid in born.read_text().split())
        clear(process, str(tmp_path), "another", "worker")
        assert helper.is_running()
        clear(process, str(tmp_path), "web", "worker")
        assert process.returncode is not None
        psutil.wait_procs([helper], timeout=30)
        assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE
        assert worker.is_running()
        assert worker.status() != psutil.STATUS_ZOMBIE
    finally:
        sweep(str(tmp_path))


def test_the_wait_before_a_restart_grows_and_is_short_again_after_a_healthy_time() -> None:
    backoff = Backoff()
    assert [backoff.failed(float(now)) for now in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.healthy(100.0)
    assert backoff.failed(110.0) == 60
    backoff.healthy(200.0)
    backoff.healthy(499.0)
    assert backoff.failed(500.0) == 1


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
