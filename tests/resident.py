"""How much of mapped files a process has in its page table, as Linux tells it."""

from pathlib import Path

import pytest

SMAPS = Path("/proc/self/smaps")
only_where_told = pytest.mark.skipif(not SMAPS.exists(), reason="only Linux tells what is mapped")


def resident_kb(folder: Path) -> int | None:
    """Return how many KiB of files in a folder this process has in its page table, None where it has mapped none."""
    found: list[int] = []
    ours = False
    for line in SMAPS.read_text().splitlines():
        if "-" in line.split()[0]:
            ours = f"{folder}/" in line
        elif ours and line.startswith("Rss:"):
            found.append(int(line.split()[1]))
    return sum(found) if found else None
