"""The pools of database connections as health and metrics show them."""

from collections.abc import Mapping
from typing import Any

from psycopg_pool import AsyncConnectionPool

from infra.metrics import ServingMetrics
from serving.health import PoolReport


class Pools:
    """The pools of a serving process, by name."""

    def __init__(self, pools: Mapping[str, AsyncConnectionPool[Any]], metrics: ServingMetrics) -> None:
        self._pools = pools
        self._metrics = metrics

    def report(self) -> dict[str, PoolReport]:
        """Return the numbers of each pool."""
        stats = {name: pool.get_stats() for name, pool in self._pools.items()}
        return {
            name: PoolReport(
                size=said.get("pool_size", 0),
                idle=said.get("pool_available", 0),
                waiting=said.get("requests_waiting", 0),
                most=said.get("pool_max", 0),
            )
            for name, said in stats.items()
        }

    def note(self) -> None:
        """Put the numbers into the metrics of this worker, whichever worker is scraped."""
        pools = self.report()
        self._metrics.pool_waiting.set(sum(pool.waiting for pool in pools.values()))
        for name, pool in pools.items():
            self._metrics.pool_connections.labels(name, "idle").set(pool.idle)
            self._metrics.pool_connections.labels(name, "busy").set(pool.size - pool.idle)
