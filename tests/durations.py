"""What every test file cost: a table at the end of a run, with the files that exceed their budget marked.

CPU time counts the processes that a test started as well, as long as they are in the tree of the test's own process.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import psutil
import pytest

# A file's wall time in seconds on two cores that also serve somebody else. Whatever needs more is split, shares a
# world that exists, or is marked `long`.
BUDGET_SECONDS = 60.0
LISTED_FILES = 20


@dataclass
class Cost:
    """What the tests of one file took."""

    tests: int = 0
    wall: float = 0.0
    cpu: float = 0.0


class Durations:
    """The plug-in: each worker measures CPU time, the controller sums both kinds per file."""

    def __init__(self) -> None:
        self.files: dict[str, Cost] = defaultdict(Cost)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Note the CPU time at the start of a test."""
        item.stash[_BEFORE] = cpu_seconds()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[Any]:
        """Attach to each phase's report what it used."""
        report: pytest.TestReport = yield
        now = cpu_seconds()
        report.user_properties = [("cpu", max(0.0, now - item.stash.get(_BEFORE, now)))]
        item.stash[_BEFORE] = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test to its file."""
        cost = self.files[report.nodeid.split("::", 1)[0]]
        cost.tests += report.when == "call"
        cost.wall += report.duration
        cost.cpu += sum(float(value) for name, value in report.user_properties if name == "cpu")  # type: ignore[arg-type]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the files that took longest and every file above its budget."""
        ranked = sorted(self.files.items(), key=lambda pair: -pair[1].wall)
        shown = [pair for place, pair in enumerate(ranked) if place < LISTED_FILES or pair[1].wall > BUDGET_SECONDS]
        if not shown or ranked[0][1].wall < 1:
            return
        total = Cost(*(sum(getattr(cost, part) for _, cost in ranked) for part in ("tests", "wall", "cpu")))
        terminalreporter.write_sep("=", f"slowest files (budget {BUDGET_SECONDS:.0f} s each)")
        terminalreporter.write_line("   wall s    cpu s  tests")
        for name, cost in [("all files", total), *shown]:
            mark = "  over budget" if name != "all files" and cost.wall > BUDGET_SECONDS else ""
            terminalreporter.write_line(f"{cost.wall:9.1f}{cost.cpu:9.1f}{cost.tests:7d}  {PurePath(name)}{mark}")


_BEFORE: pytest.StashKey[float] = pytest.StashKey()
# Known from the start: a test may have `os.getpid` say something else while its report is made.
_OWN = psutil.Process()


def cpu_seconds() -> float:
    """Return the CPU time of this process, of the children it has reaped and of the descendants that live."""
    spent = os.times()
    total = spent.user + spent.system + spent.children_user + spent.children_system
    for child in _OWN.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])  # its own and that of the children it has reaped
    return total
