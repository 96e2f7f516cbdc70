"""A machine without a time zone database: Arrow does not even know UTC there, and one sentence says so."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.cli import checks, run
from infra.errors import ConfigurationError
from infra.settings import Settings
from infra.supervisor import platform
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


@pytest.fixture
def zoneless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find no time zones, as on a minimal image."""
    monkeypatch.setattr("infra.time_zones.has_time_zones", lambda: False)
    monkeypatch.setattr(checks, "has_time_zones", lambda: False)


@pytest.mark.usefixtures("zoneless")
@pytest.mark.parametrize(
    "words", [["tables", "--people", "p.csv"], ["speed-dating", "p.csv"], ["synthetic", "--people", "20"]]
)
def test_an_import_without_zones_is_refused_before_it_looks_for_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUET_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert run(["--data-dir", str(tmp_path / "data"), "import", *words]) == 1
    assert "This machine has no time zone database" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("zoneless")
@pytest.mark.parametrize("start", [platform.run_platform, platform.start_in_background])
def test_a_platform_without_zones_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Settings], Any]
) -> None:
    started: list[str] = []
    monkeypatch.setattr(platform, "spawn", lambda *_, **__: started.append("a supervisor"))
    monkeypatch.setattr(platform, "Supervisor", lambda *_, **__: started.append("services"))
    with pytest.raises(ConfigurationError, match="no time zone database"):
        start(Settings(data_dir=tmp_path))
    assert started == []


@pytest.mark.usefixtures("zoneless")
def test_the_doctor_says_what_a_machine_without_zones_needs(tmp_path: Path) -> None:
    [found] = [result for result in checks.check_machine(Settings(data_dir=tmp_path)) if result.name == "time zones"]
    assert (found.ok, found.seen) == (False, "no time zone database")
    assert "install the package `tzdata`" in found.remedy
