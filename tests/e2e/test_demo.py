"""`make demo EXIT=1`: the first thing a newcomer types."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ANY_FREE_PORT, HANGS_S, clean_environment, processes_of

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.mark.long
def test_the_demo_prints_answers_ends_well_and_leaves_no_process(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "demo", "EXIT=1", "PEOPLE=300", f"DATA_DIR={tmp_path}"],
        cwd=ROOT,
        env=clean_environment(COLUMNS="160", **ANY_FREE_PORT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "level 1 (full)" in done.stdout
    assert "two_stage" in done.stdout
    assert processes_of(tmp_path) == []


def test_make_test_runs_in_parallel_and_leaves_the_long_ones_to_make_test_long() -> None:
    told, long = (
        subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for target in ("test", "test-long")
    )
    assert "-m pytest -m 'not long' -n logical" in told
    assert "-m pytest -m long" in long
