import asyncio
from datetime import UTC, datetime
from typing import Any

from prometheus_client import REGISTRY

from infra.metrics import serving_metrics
from serving.logs.measurements import Measurements

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_what_the_pipelines_measured_is_in_the_metrics_and_stays_while_the_database_is_away() -> None:
    rows: list[tuple[Any, ...]] = [("drift_psi", 0.31, "e1-i1-r1", AT), ("something newer", 1.0, "x", AT)]
    away = False

    async def read() -> list[tuple[Any, ...]]:
        if away:
            raise ConnectionError
        return rows

    looking = Measurements(read, serving_metrics())
    asyncio.run(looking.refresh())
    away = True
    asyncio.run(looking.refresh())
    assert REGISTRY.get_sample_value("duet_measurement", {"measure": "drift_psi"}) == 0.31
    assert REGISTRY.get_sample_value("duet_measurement_timestamp_seconds", {"measure": "drift_psi"}) == AT.timestamp()
    assert REGISTRY.get_sample_value("duet_measurement", {"measure": "something newer"}) is None
