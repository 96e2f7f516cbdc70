"""The whole benchmark on a tiny world, through the command, with real servers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.settings import Settings
from pipelines.bench.world import remove_world, world_settings

# A busy machine must not turn answers late: this is about what is measured, not about how fast it is.
PATIENT = {
    "DUET_ENVIRONMENT": "test",
    "DUET_SERVING__DEADLINE_MS": "10000",
    "DUET_SERVING__TIMEOUT_S": "30",
    "DUET_SERVING__QUEUE_TIMEOUT_MS": "10000",
    "DUET_POSTGRES__STATEMENT_TIMEOUT_S": "20",
    "DUET_POSTGRES__CHECKOUT_TIMEOUT_S": "10",
    "DUET_REDIS__SOCKET_TIMEOUT_S": "5",
    "DUET_REDIS__CONNECT_TIMEOUT_S": "5",
}


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for worlds, gone afterwards with what Postgres keeps aside."""
    folder = tmp_path_factory.mktemp("worlds")
    yield folder
    world = folder / "people-300"
    if world.exists():
        remove_world(world, world_settings(Settings(environment="test"), world))


def bench(root: Path, *words: str, of: str = "serving") -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "infra.cli", "--data-dir", str(root), "bench", of, *words)
    return subprocess.run(
        command, env={**os.environ, **PATIENT}, capture_output=True, text=True, timeout=280, check=False
    )


def test_a_tiny_world_is_built_served_measured_and_compared(root: Path) -> None:
    document = root / "bench.json"
    done = bench(
        root, "--people", "300", "--seconds", "1", "--concurrency", "2", "--rate", "5", "--repeat", "1",
        "--no-swap", "--no-overload", "--world-dir", str(root), "--json", str(document),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_text())["sizes"][0]
    uncached = found["uncached"][0]
    assert found["wrong"] == {}
    assert uncached["n"] > 0
    assert {"eligibility", "retrieval", "ranking", "safety", "total"} <= uncached["stages_ms"].keys()
    assert uncached["cached_share"] == 0.0
    assert found["open_loop"]["n"] == 5
    assert found["memory"][0]["private_mb"] > 50
    assert found["cold_start"]["ready_s"] > 0
    assert found["naive"]["p50"] > 0
    assert set(found["ratios"]) == {"throughput", "p50", "cpu"}
    assert "times better" in done.stdout
    assert json.loads((root / "people-300" / "bench_world.json").read_text())["finished"] is True


def test_a_rebuild_of_the_index_is_measured_step_by_step(root: Path) -> None:
    document = root / "index.json"
    done = bench(root, "--people", "300", "--world-dir", str(root), "--json", str(document), of="index")
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_text())
    steps = [step["step"] for step in found["steps"]]
    assert steps[1:3] == ["people out of Postgres", "interactions out of Postgres"]
    assert steps[-2:] == ["saved", "release verified, loaded and tried in a process of its own"]
    assert any("factors brought up to date" in step for step in steps)
    result = found["result"]
    assert (result["kind"], result["recall"], result["refused"]) == ("flat", 1.0, None)
    assert result["factors_refreshed"] > 0
    assert 200 < result["people"] <= 300
    assert 50 < result["peak_mb"] < 4_000
    assert "peak MB" in done.stdout
    assert not list((root / "people-300").glob("tmp*")), "what was made on the way is gone"
