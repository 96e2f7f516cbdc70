"""Which worker runs what: a file stays whole, files that share a world stay together, and what takes long begins."""

from collections.abc import Iterable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

SHARED_WORLDS: dict[str, str] = {}
"""The files that use what one fixture builds, by the name of what they share."""
BEGIN = (
    "tests/e2e",
    "tests/fault/test_release",
    "tests/integration/pipelines",
    "tests/fault",
    "tests/integration",
    "tests/api",
)
"""What takes longest, first: the last files of a run are short, so no worker waits for another for long."""


class ByWorld(LoadScopeScheduling):
    """Hands out whole files, and those of one world to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return SHARED_WORLDS.get(file, file)


class Scheduling:
    """The plug-in."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> ByWorld | None:
        """Use it where whole files were asked for."""
        return ByWorld(config, log) if config.getoption("dist") == "loadfile" else None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Begin with what takes longest; the order within a file stays."""
        items.sort(key=lambda item: place(item.nodeid))


def place(nodeid: str) -> tuple[int, str]:
    """Return where a file comes in the order."""
    file = nodeid.split("::", 1)[0]
    return first_of(file, BEGIN), SHARED_WORLDS.get(file, file)


def first_of(file: str, beginnings: Iterable[str]) -> int:
    """Return the number of the first beginning that the file has."""
    found = [number for number, beginning in enumerate(beginnings) if file.startswith(beginning)]
    return min(found, default=len(BEGIN))
