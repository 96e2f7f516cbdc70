"""A request to end is not lost where Python drops exceptions."""

import signal
import subprocess
import sys

import pytest

# The request comes up in the finalizer, where Python prints it and goes on.
PROGRAM = """
import os, signal, time
from infra.cli.endings import end_in_order

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
end_in_order()
kept = Finalized()
try:
    del kept
    time.sleep(30)
finally:
    print("unwound")
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 128 + signal.SIGTERM), ("SIGINT", -signal.SIGINT)])
def test_a_request_to_end_that_arrives_in_a_finalizer_ends_the_command_in_order(name: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=name)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stdout) == (code, "unwound\n")
    assert "Exception ignored" not in ended.stderr


def test_what_else_a_finalizer_drops_is_reported_as_ever() -> None:
    program = PROGRAM.replace("os.kill(os.getpid(), signal.{name})", "raise ValueError").replace(
        "sleep(30)", "sleep(0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "unwound\n")
    assert "Exception ignored" in ended.stderr
