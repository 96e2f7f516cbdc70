import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr

from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from infra.settings import Settings
from infra.supervisor.errors import PlatformNotRunning, PlatformRunning, RestartFailed, UnknownProcess
from infra.supervisor.platform import serving_url, stop_platform
from infra.supervisor.processes import marked
from infra.supervisor.requests import restart
from infra.supervisor.state import Phase, mark_of, platform_lock, read_state, running_state
from tests.integration.cli.dummy_platform import SERVER
from tests.waiting import until

DUMMY = Path(__file__).with_name("dummy_platform.py")
# Ignores SIGTERM and has a child in a session of its own: only a sweep finds that one.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
time.sleep(300)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*specs: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, str(DUMMY), str(tmp_path / "data"), json.dumps(specs)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    for left in marked(mark_of(tmp_path / "data")):
        left.kill()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def read_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    lines: list[str] = []
    for line in process.stdout or ():
        lines.append(line.strip())
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted!r} never came, but {lines}")


def web(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": free_port(), **more}


def test_services_start_in_order_and_stop_in_reverse(start: Start, data_dir: Path) -> None:
    specs = [
        web("one"),
        {"name": "prepare", "code": "pass", "step": True, "after": ["one"]},
        web("two", after=["prepare"]),
    ]
    platform = start(*specs)
    begun = read_until(platform, "ready running")
    order = [line for line in begun if "waiting" not in line]
    assert order == [
        "one starting",
        "one healthy",
        "prepare starting",
        "prepare done",
        "two starting",
        "two healthy",
        "ready running",
    ]
    state = running_state(data_dir)
    assert state is not None
    assert state.phase is Phase.RUNNING
    assert httpx.get(state.urls()["two"], trust_env=False).text == "well"
    pids = [service.pid for service in state.services.values()]

    platform.send_signal(signal.SIGINT)
    rest, _ = platform.communicate(timeout=120)
    assert rest.split("\n")[:2] == ["two stopped ", "one stopped "]
    assert platform.returncode == 0
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert running_state(data_dir) is None
    assert read_state(data_dir) is None


def test_a_process_that_dies_is_reported_with_its_last_words_and_started_again(start: Start, data_dir: Path) -> None:
    platform = start(web("lasting"), web("fragile"))
    read_until(platform, "ready running")
    state = running_state(data_dir)
    assert state is not None
    pid = state.services["fragile"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    obituary = read_until(platform, "fragile died")[-1]
    assert "ended with signal SIGKILL" in obituary
    port = specs_port(state.urls()["fragile"])
    assert obituary.endswith(f"and ends: serving on {port}; it is started again in 1 s")
    assert "started again, because it ended with signal SIGKILL" in read_until(platform, "fragile starting")[-1]
    read_until(platform, "fragile healthy")
    until(lambda: (now := running_state(data_dir)) is not None and now.phase is Phase.RUNNING)
    assert httpx.get(state.urls()["fragile"], trust_env=False).text == "well"
    after = running_state(data_dir)
    assert after is not None
    assert after.services["fragile"].pid not in {None, pid}
    assert after.services["lasting"].pid == state.services["lasting"].pid


def test_one_process_is_started_anew_when_somebody_asks_for_it(start: Start, data_dir: Path) -> None:
    platform = start(web("one"), web("two"))
    read_until(platform, "ready running")
    before = running_state(data_dir)
    assert before is not None
    anew = restart(data_dir, "one")
    assert anew.pid not in {None, before.services["one"].pid}
    assert httpx.get(before.urls()["one"], trust_env=False).text == "well"
    after = running_state(data_dir)
    assert after is not None
    assert after.services["two"].pid == before.services["two"].pid
    with pytest.raises(UnknownProcess, match="`three` is no process of this platform: choose one of one, two"):
        restart(data_dir, "three")


def test_a_process_that_cannot_be_started_anew_is_told_with_its_last_words(
    start: Start, data_dir: Path, tmp_path: Path
) -> None:
    platform = start(web("once", code=f"import os; os.mkdir({str(tmp_path / 'once')!r})\n{SERVER}"))
    read_until(platform, "ready running")
    with pytest.raises(
        RestartFailed, match=r"^once ended with exit code 1; .*FileExistsError.*; it is started again in"
    ):
        restart(data_dir, "once")


def test_nothing_is_started_anew_where_no_platform_runs(data_dir: Path) -> None:
    with pytest.raises(PlatformNotRunning, match="start one with `duet up`"):
        restart(data_dir, "one")


def specs_port(url: str) -> str:
    return url.rpartition(":")[2]


def test_a_process_that_dies_while_starting_ends_the_start_and_everything_else(start: Start, data_dir: Path) -> None:
    platform = start(web("lasting"), {"name": "broken", "port": 1, "code": "raise SystemExit('no such model')"})
    output, _ = platform.communicate(timeout=120)
    assert platform.returncode == 1
    assert "error: broken ended with exit code 1; its log is" in output
    assert output.strip().endswith("and ends: no such model")
    assert marked(mark_of(data_dir)) == []
    state = read_state(data_dir)
    assert state is not None
    assert state.phase is Phase.FAILED
    assert running_state(data_dir) is None


def test_a_failed_step_names_itself(start: Start) -> None:
    platform = start({"name": "prepare", "step": True, "code": "raise SystemExit(3)"})
    output, _ = platform.communicate(timeout=120)
    assert "error: prepare ended with exit code 3" in output


def test_a_process_that_never_answers_is_given_up(start: Start, data_dir: Path) -> None:
    platform = start(
        {"name": "mute", "port": free_port(), "code": "import time; time.sleep(300)", "start_timeout_s": 1}
    )
    output, _ = platform.communicate(timeout=120)
    assert re.search(r"error: mute is not healthy after \d+ s, .* without progress: http://127.0.0.1:", output)
    assert marked(mark_of(data_dir)) == []


def test_a_stop_during_the_start_ends_everything_quietly(start: Start, data_dir: Path) -> None:
    platform = start({"name": "mute", "port": free_port(), "code": "import time; time.sleep(300)"})
    read_until(platform, "mute starting")
    platform.send_signal(signal.SIGTERM)
    platform.communicate(timeout=120)
    assert platform.returncode == 0
    assert marked(mark_of(data_dir)) == []


def test_a_process_that_ignores_sigterm_is_killed_with_its_descendants(start: Start, data_dir: Path) -> None:
    platform = start({"name": "stubborn", "code": STUBBORN})
    read_until(platform, "ready running")
    until(lambda: len(marked(mark_of(data_dir))) == 2)
    platform.send_signal(signal.SIGTERM)
    platform.communicate(timeout=30)
    assert marked(mark_of(data_dir)) == []


def test_children_can_be_stopped_although_the_supervisor_was_started_with_signals_ignored(
    start: Start, data_dir: Path
) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        platform = start(web("one"))  # a new program inherits ignored signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    read_until(platform, "ready running")
    state = running_state(data_dir)
    assert state is not None
    pid = state.services["one"].pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    assert "ended with signal SIGTERM" in read_until(platform, "one died")[-1]


def test_down_stops_a_running_platform(start: Start, data_dir: Path) -> None:
    platform = start(web("one"))
    read_until(platform, "ready running")
    assert stop_platform(Settings(data_dir=data_dir)) is True
    platform.communicate(timeout=60)
    assert platform.returncode == 0
    assert marked(mark_of(data_dir)) == []
    assert stop_platform(Settings(data_dir=data_dir)) is False


def test_down_clears_up_after_a_supervisor_that_was_killed(start: Start, data_dir: Path, endpoints: Endpoints) -> None:
    platform = start(web("one"), {"name": "stubborn", "code": STUBBORN})
    read_until(platform, "ready running")
    until(lambda: len(marked(mark_of(data_dir))) == 3)
    platform.kill()
    platform.wait()
    assert running_state(data_dir) is None
    assert len(marked(mark_of(data_dir))) == 3
    settings = Settings(
        data_dir=data_dir,
        database_url=SecretStr(endpoints.database_url),
        redis_url=SecretStr(endpoints.redis_url),
    )
    assert stop_platform(settings) is True
    assert marked(mark_of(data_dir)) == []
    assert read_state(data_dir) is None


def test_the_next_start_clears_up_after_a_supervisor_that_was_killed(start: Start, data_dir: Path) -> None:
    spec = web("one")
    killed = start(spec)
    read_until(killed, "ready running")
    before = {process.pid for process in marked(mark_of(data_dir))}
    killed.kill()
    killed.wait()
    again = start(spec)  # the same port: it is free only if the orphan is gone
    read_until(again, "ready running")
    assert before.isdisjoint(process.pid for process in marked(mark_of(data_dir)))


def test_only_one_platform_runs_on_a_data_directory(start: Start, data_dir: Path) -> None:
    platform = start(web("one"))
    read_until(platform, "ready running")
    second = start(web("two"))
    output, _ = second.communicate(timeout=120)
    assert f"error: a platform already runs on {data_dir} (pid {platform.pid})" in output
    with pytest.raises(PlatformRunning, match="stop it with `duet down`"), platform_lock(data_dir):
        pass


def test_others_learn_the_address_of_the_serving_app_from_the_running_platform(start: Start, data_dir: Path) -> None:
    settings = Settings(data_dir=data_dir)
    assert serving_url(settings) == "http://127.0.0.1:8000"
    spec = web("serving")
    platform = start(spec)
    read_until(platform, "ready running")
    assert serving_url(settings) == f"http://127.0.0.1:{spec['port']}"
