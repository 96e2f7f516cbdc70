"""Shows in the metrics what the pipelines measured last; every worker looks, so whichever is scraped tells it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from infra.metrics import ServingMetrics
from registry.measurements import measurements

EVERY_S: Final = 5.0
_log = structlog.get_logger(__name__)


class Measurements:
    """Looks at the table again and again; `read` fetches its rows, and may raise whatever its database raises."""

    def __init__(self, read: Callable[[], Awaitable[Sequence[tuple[Any, ...]]]], metrics: ServingMetrics) -> None:
        self._read = read
        self._metrics = metrics
        self._failing = False

    async def refresh(self) -> None:
        """Look once; on failure the last known figures stay."""
        try:
            rows = await self._read()
        except Exception as error:  # noqa: BLE001 whatever the database raises: the next look may do better
            if not self._failing:
                _log.warning("measurements_not_read", error=type(error).__name__)
            self._failing = True
            return
        self._failing = False
        for one in measurements(rows):
            self._metrics.measurement.labels(one.measure.value).set(one.value)
            self._metrics.measured_at.labels(one.measure.value).set(one.measured_at.timestamp())

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(EVERY_S)
