"""A machine without a time zone database: Arrow does not even know UTC there, and one sentence says so."""

import shutil
import subprocess
import sys

import pytest

from infra.time_zones import has_time_zones, require_time_zones

HIDDEN = 'mount -t tmpfs none /usr/share/zoneinfo && exec "$@"'


def without_zones(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where /usr/share/zoneinfo is empty."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "sh", "-c", HIDDEN, "-", "true"], check=False).returncode:
        pytest.skip("this user may not hide a folder from a process (unshare -m)")
    words = [unshare, "-m", "sh", "-c", HIDDEN, "-", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def test_this_machine_knows_its_zones() -> None:
    assert has_time_zones()
    require_time_zones()


def test_a_machine_without_zones_is_told_what_to_install() -> None:
    script = "from infra.time_zones import require_time_zones; require_time_zones()"
    ended = without_zones(sys.executable, "-c", script)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "ConfigurationError: This machine has no time zone database" in last
    assert "install the package `tzdata`" in last
