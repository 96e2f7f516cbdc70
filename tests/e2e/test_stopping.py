"""A command that is told to stop takes the servers with it that only it kept alive."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ANY_FREE_PORT, clean_environment, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e


def test_a_terminated_import_leaves_no_server_behind(tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "import", "synthetic", "--people", "200000"],
        env=clean_environment(DUET_DATA_DIR=str(tmp_path), **ANY_FREE_PORT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: any("redis-server" in line for line in processes_of(tmp_path)))
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == 128 + signal.SIGTERM
    assert [line for line in processes_of(tmp_path) if "postgres" in line or "redis" in line] == []
