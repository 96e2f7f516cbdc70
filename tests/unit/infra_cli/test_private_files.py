"""What the command line and its processes write is closed to other accounts from the first byte on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.supervisor.processes import spawn

# A child of the command, in place of what a command would start.
PROGRAM = """
import os
from infra.cli import app
app.run = lambda: os.system("umask")
app.main()
"""


@pytest.fixture(autouse=True)
def _open_to_everybody() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_the_command_and_its_children_keep_their_files_from_other_accounts() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "0077\n"


def test_a_process_of_the_platform_keeps_its_files_from_other_accounts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert spawn(("sh", "-c", "umask"), mark=str(tmp_path), environment={}, log_path=log).wait() == 0
    assert log.read_text() == "0077\n"
