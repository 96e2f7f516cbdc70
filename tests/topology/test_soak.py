"""A soak of a minute: it looks at every process and tells of each. Whether anything grows, only an hour can say."""

import subprocess
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT
from tests.topology import apart
from tests.topology.mix import WEIGHTS
from tests.topology.soak import SOAKED

LIMIT_S = 1500

pytestmark = [pytest.mark.long, pytest.mark.timeout(LIMIT_S)]


def test_a_minute_of_load_is_told_for_every_machine_and_call(tmp_path: Path) -> None:
    if (absent := apart.missing()) is not None:
        pytest.skip(absent)
    samples = tmp_path / "samples.jsonl"
    words = ("make", "soak", "MINUTES=1", f"SOAK_ARGS=--every 5 --samples {samples}")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert all(f"| {name}, " in done.stdout for name in SOAKED), done.stderr[-3000:]
    assert all(f"| {call} | " in done.stdout for call in WEIGHTS if WEIGHTS[call] > 5), done.stdout
    assert len(samples.read_text().splitlines()) > 1
