"""The release side of a serving process, wired: what it follows, how it tries a release, what it tells of itself."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import psycopg
import structlog
from psycopg import sql

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from infra.clock import Clock
from infra.db.connection_pool import ConnectionPool
from infra.errors import DuetError
from infra.metrics import ServingMetrics
from infra.settings import Settings
from registry.contracts import ReleaseIdentity
from registry.mlflow.observer import Observed, observe
from registry.promotion.audit import ORDERS, PostgresPromotionLog
from registry.promotion.release_cache import LocalRelease, ReleaseCache
from registry.promotion.trial import ReleaseTrial
from registry.release import Release, load_release
from registry.store import ModelRegistry
from serving.releases.heartbeat import Heartbeat
from serving.releases.orders import ReleaseOrders
from serving.releases.stage_view import RegistryBreaker
from serving.releases.trial import recorded_requests, try_release
from serving.releases.watcher import ReleaseWatcher
from serving.resilience.background import Run
from serving.snapshots.population_source import PopulationSnapshot

_PEOPLE_FIRST_S: Final = 5.0
"""A snapshot that is there is mapped in less; where it must be written first, answers of a lower level begin sooner."""
_ORDERS_FIRST_S: Final = 5.0
_log = structlog.get_logger(__name__)


class Following:
    """The watcher and what keeps it informed; `connect` opens a connection for work that takes its time."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        metrics: ServingMetrics,
        *,
        registry: ModelRegistry | None,
        guard: RegistryBreaker,
        pool: ConnectionPool,
        connect: Callable[[], psycopg.Connection[Any]],
        snapshot: Callable[[], PopulationSnapshot | None],
        challenger_wanted: Callable[[], bool],
        people_read_at: Callable[[], datetime | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._pool = pool
        self._connect = connect
        self._snapshot = snapshot
        self._trial = ReleaseTrial(offered_schema(), RANKING_FEATURES)
        copies = ReleaseCache(settings.data_dir / "releases")
        self.orders = ReleaseOrders(
            self._read_orders,
            settings.serving.experiment_poll_s,
            lambda urgent: self.watcher.nudge(urgent=urgent),
        )
        self.watcher = ReleaseWatcher(
            registry=registry,
            cache=copies,
            feature_schema=offered_schema(),
            prove=self._trial.prove,
            give_up=self._trial.give_up,
            load=_load_release,
            trial=self._try_release,
            observe=self._observe,
            pinned=lambda: self.orders.pin,
            poll_s=settings.serving.release_poll_s,
            clock=clock,
            metrics=metrics,
            challenger_wanted=challenger_wanted,
            guard=guard,
        )
        self._heartbeat = Heartbeat(self.watcher, copies, self._write, people_read_at)

    def work(self, people_came: asyncio.Event) -> Mapping[str, Run]:
        """Return what must run for as long as the process serves, by name."""
        return {
            "orders": self.orders.run,
            "heartbeat": self._heartbeat.run,
            "releases": lambda: self._watch(people_came),
        }

    def close(self) -> None:
        """End a trial that is under way, and let go of the threads."""
        self._trial.close()
        self.watcher.close()

    async def _watch(self, people_came: asyncio.Event) -> None:
        # A release is tried on real people, so people come first; but not for ever.
        with suppress(TimeoutError):
            await asyncio.wait_for(people_came.wait(), _PEOPLE_FIRST_S)
        # A pin counts from the start on; without Postgres, nobody can be shown anybody anyway.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.orders.tried.wait(), _ORDERS_FIRST_S)
        await self.watcher.run()

    def _observe(
        self, registry: ModelRegistry, stages: tuple[str, ...], honoured: Callable[[ReleaseIdentity], bool]
    ) -> Observed:
        with self._connect() as connection:
            return observe(registry, PostgresPromotionLog(connection), stages, honoured)

    def _try_release(self, release: Release) -> None:
        try:
            with self._connect() as connection:
                recorded = recorded_requests(connection)
        except (DuetError, psycopg.Error) as error:
            _log.warning("recorded_requests_not_read", error=type(error).__name__)
            recorded = {}
        try_release(release, self._snapshot(), self._settings, self._clock, recorded)

    async def _read_orders(self) -> tuple[Any, ...]:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(ORDERS)).fetchone()
        return tuple(row or ())

    async def _write(self, statement: sql.SQL, values: Mapping[str, Any] | tuple[Any, ...]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(statement, values)


def _load_release(local: LocalRelease) -> Release:
    return load_release(
        local.directories,
        local.versions,
        feature_schema=offered_schema(),
        feature_names=RANKING_FEATURES,
        expected_digests=local.digests,
        manifests=local.manifests or None,  # they are there when every byte was verified against them just now
    )
