"""Keeps the population in memory fresh, in the background: one reference, replaced whole.

A refresh that fails keeps what is there and says why in /health; it never reaches a request. A full reload follows
each new filling of the online store (and the refresh after it, because filling takes a while), and every tenth refresh.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from infra.clock import Clock
from infra.metrics import ServingMetrics
from serving.population_source import Snapshot

RELOAD_EVERY = 10
FIRST_RETRY_S = 1.0
_log = structlog.get_logger(__name__)


class SnapshotKeeper:
    """Holds the current snapshot; `load` and `refresh` block and run in a thread of their own."""

    def __init__(
        self,
        *,
        load: Callable[[], Snapshot],
        refresh: Callable[[Snapshot], tuple[Snapshot, bool]],
        refresh_s: float,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._load = load
        self._refresh = refresh
        self._refresh_s = refresh_s
        self._clock = clock
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._refreshed_s: float | None = None
        self._until_reload = RELOAD_EVERY
        self.current: Snapshot | None = None
        self.tried = asyncio.Event()
        self.problem: str | None = None

    def age_s(self) -> float | None:
        """Return the seconds since the last good refresh, None before the first."""
        return None if self._refreshed_s is None else round(self._clock.monotonic() - self._refreshed_s, 3)

    async def run(self) -> None:
        """Load, then refresh for ever."""
        while True:
            await self.step()
            await asyncio.sleep(self._refresh_s if self.current is not None else FIRST_RETRY_S)

    async def step(self) -> None:
        """Load or refresh once; failures are kept in `problem`."""
        began_s = self._clock.monotonic()
        try:
            snapshot = await asyncio.get_running_loop().run_in_executor(self._thread, self._next, self.current)
        except Exception as error:  # noqa: BLE001 a background task must outlive whatever its libraries raise
            self.problem = f"The population could not be refreshed: {type(error).__name__}."
            _log.warning("snapshot_failed", exc_info=error)
        else:
            self.current = snapshot
            self.problem = None
            self._refreshed_s = self._clock.monotonic()
            self._metrics.population_people.set(len(snapshot.population))
            self._metrics.population_loaded_at.set(self._clock.now().timestamp())
            _log.debug("snapshot_refreshed", ms=round((self._refreshed_s - began_s) * 1000))
        finally:
            self.tried.set()

    def _next(self, current: Snapshot | None) -> Snapshot:
        if current is None or self._until_reload <= 0:
            self._until_reload = RELOAD_EVERY
            return self._load()
        refreshed, refilled = self._refresh(current)
        if not refilled:
            self._until_reload -= 1
            return refreshed
        self._until_reload = 0
        return self._load()

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
