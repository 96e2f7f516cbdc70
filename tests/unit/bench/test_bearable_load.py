"""At a constant rate below what the service can do, and at a rate that a person asks for, nobody may be refused."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.settings import Settings
from pipelines.bench import measure
from pipelines.bench.load import Job, Seen
from pipelines.bench.measure import AUTO_RATE, Options, ServingMeasurement
from pipelines.bench.world import BenchWorld, WorldSpec
from tests.clocks import FixedClock

REFUSED = {"status 503": 3, "level 4: deadline_exceeded": 1}
SERVICE: Any = SimpleNamespace(port=1, settings=Settings(environment="test"))


class Driven(ServingMeasurement):
    """A measurement whose every load is refused a few times; keeps what the loads were."""

    def _load(self, _service: object, job: Job) -> tuple[Seen, dict[str, float]]:
        self.figures.setdefault("jobs", []).append(job)
        seen = Seen(latency_ms=[5.0] * 10, problems=Counter(REFUSED), due_s=[0.5] * 10, good=[True] * 10, ended_s=1.0)
        return seen, dict.fromkeys(("cpu_ms", "service_cpu_ms", "postgres_cpu_ms", "client_cpu_ms"), 1.0)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch, clock: FixedClock, tmp_path: Path) -> Driven:
    """A measurement of a service whose best closed loop got 100 answers per second."""
    monkeypatch.setattr(measure, "shuffled_askers", lambda _world, _seed: [1, 2, 3])
    world = BenchWorld(WorldSpec(300), Settings(environment="test", data_dir=tmp_path), {}, reused=True)
    figures = {"uncached": [{"per_s": 100.0}]}
    return Driven(world, cast("Any", None), Options(seconds=1.0, repeat=1), clock, figures)


@pytest.mark.parametrize("rate", [None, 50.0])
def test_being_refused_or_late_at_a_constant_rate_is_wrong(driven: Driven, rate: float | None) -> None:
    driven.options = Options(seconds=1.0, rate=rate)
    driven._open(SERVICE)
    assert driven.figures["jobs"][0].phases == [(rate or AUTO_RATE * 100, 1.0)]
    assert driven.wrong == REFUSED
    assert "refused" not in driven.figures


def test_being_refused_or_late_is_no_wrong_of_an_overload_or_of_several_at_once(driven: Driven) -> None:
    driven._overload(SERVICE)
    driven._closed(SERVICE, 16, [1, 2, 3])
    assert driven.wrong == {}
    assert driven.figures["refused"] == {"16 at once": 4}


def test_being_refused_or_late_alone_is_wrong(driven: Driven) -> None:
    driven._closed(SERVICE, 1, [1, 2, 3])
    assert driven.wrong == REFUSED
