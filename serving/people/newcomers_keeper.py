"""Keeps the newcomers of each release that serves, in the background: one mapping, replaced whole."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from infra.clock import Clock
from infra.metrics import ServingMetrics
from registry.release import Release
from registry.scoring.newcomers import Newcomers
from serving.api.health import NewcomersReport
from serving.experiments.assignment import Variant
from serving.people.newcomers import NewcomerSearch, look
from serving.snapshots.population_source import PopulationSnapshot

POLL_S: Final = 0.5
_log = structlog.get_logger(__name__)


class NewcomersKeeper:
    """Looks again whenever something changed; `current` holds the newcomers by release id and is replaced whole."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], PopulationSnapshot | None],
        releases: Callable[[], Mapping[Variant, Release | None]],
        most: int,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._snapshot = snapshot
        self._releases = releases
        self._most = most
        self._clock = clock
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="newcomers")
        self._looks: dict[Variant, NewcomerSearch] = {}
        self._looked_s: float | None = None
        self._failure: str | None = None
        self.current: Mapping[str, Newcomers] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.step()
            await asyncio.sleep(POLL_S)

    async def step(self) -> None:
        """Look once; a failure keeps what is there and is told by `report`."""
        snapshot = self._snapshot()
        try:
            for variant, release in self._releases().items():
                if release is None or snapshot is None:
                    self._forget(variant)
                else:
                    await self._look(variant, release, snapshot)
        except Exception as error:  # noqa: BLE001 a background task must outlive whatever a release raises
            self._failure = f"Newcomers could not be looked for: {type(error).__name__}."
            _log.warning("newcomers_failed", exc_info=error)
            return
        self._failure = None
        self._metrics.newcomers_looked_at.set(self._clock.now().timestamp())
        if self._looks:
            self._looked_s = self._clock.monotonic()

    async def _look(self, variant: Variant, release: Release, snapshot: PopulationSnapshot) -> None:
        last, at = self._looks.get(variant), self._clock.now().timestamp()
        if last is not None and last.holds(release, snapshot):
            return
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._thread, lambda: look(release, snapshot, at, most=self._most, last=last)
        )
        if found.left_out and not (last is not None and last.release is release and last.left_out):
            _log.warning(
                "newcomers_left_out", release=release.release_id, people=found.left_out, most=self._most,
                action="rebuild the index",
            )  # fmt: skip
        self._looks[variant] = found
        self._publish()
        self._count(variant, len(found.newcomers), found.missing, found.left_out)

    def _forget(self, variant: Variant) -> None:
        if self._looks.pop(variant, None) is not None:
            self._publish()
            self._count(variant, 0, 0, 0)

    def _publish(self) -> None:
        self.current = {found.release.mark: found.newcomers for found in self._looks.values()}

    def _count(self, variant: Variant, people: int, missing: int, left_out: int) -> None:
        self._metrics.newcomers.labels(variant.value).set(people)
        self._metrics.index_missing.labels(variant.value).set(missing)
        self._metrics.newcomers_left_out.labels(variant.value).set(left_out)

    def report(self) -> NewcomersReport:
        """Return what /health says of the champion's newcomers."""
        found = self._looks.get(Variant.CHAMPION)
        return NewcomersReport(
            people=len(found.newcomers) if found else 0,
            missing=found.missing if found else 0,
            left_out=found.left_out if found else 0,
            age_s=None if self._looked_s is None else round(self._clock.monotonic() - self._looked_s, 3),
            message=self._failure,
        )

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
