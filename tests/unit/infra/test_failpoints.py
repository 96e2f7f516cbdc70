"""A failpoint kills the process that was told to die there, at the pass it was told, and nobody else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
from infra.faults import failpoint
for step in range(3):
    failpoint("cake.after_eggs")
    print(step, flush=True)
"""


@pytest.mark.parametrize(
    ("armed", "steps", "status"),
    [
        (None, 3, 0),
        ("cake.after_flour", 3, 0),
        ("cake.after_eggs", 0, -signal.SIGKILL),
        ("cake.after_eggs:3", 2, -signal.SIGKILL),
        ("cake.after_eggs:4", 3, 0),
    ],
)
def test_a_process_dies_at_its_failpoint_only(armed: str | None, steps: int, status: int) -> None:
    environment = {**os.environ, **({} if armed is None else {"DUET_FAILPOINT": armed})}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.returncode) == ([str(step) for step in range(steps)], status), done.stderr


def test_an_armed_failpoint_is_no_misspelled_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.settings import load_settings

    monkeypatch.setenv("DUET_FAILPOINT", "cake.after_eggs")
    assert load_settings().environment == "development"
