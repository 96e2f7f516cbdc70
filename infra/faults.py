"""Named failpoints: places where a test lets a process be killed, as a power cut would, to see what is left.

Inert unless `DUET_FAILPOINT` names one when the process starts. `name` kills at the first pass, `name:3` at the third.
Names read `what.after_which_step`, such as `promotion.after_embedding`.
"""

import os
import signal
from typing import Final

VARIABLE: Final = "DUET_FAILPOINT"

_name, _, _nth = os.environ.get(VARIABLE, "").partition(":")
_left: int = int(_nth) if _nth.isdecimal() else 1


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL if the environment armed this failpoint; otherwise do nothing."""
    global _left  # noqa: PLW0603 a process has one environment, and dies of this
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
