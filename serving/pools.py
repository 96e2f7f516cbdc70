"""The pools of database connections as health and metrics show them."""

from collections.abc import Mapping

from infra.connection_pool import ConnectionPool
from infra.metrics import ServingMetrics
from serving.health import PoolReport


class Pools:
    """The pools of a serving process, by name."""

    def __init__(self, pools: Mapping[str, ConnectionPool], metrics: ServingMetrics) -> None:
        self._pools = pools
        self._metrics = metrics

    def report(self) -> dict[str, PoolReport]:
        """Return the numbers of each pool."""
        stats = {name: pool.stats() for name, pool in self._pools.items()}
        return {
            name: PoolReport(size=now.size, idle=now.idle, waiting=now.waiting, most=now.most, message=now.problem)
            for name, now in stats.items()
        }

    def note(self) -> None:
        """Put the numbers into the metrics of this worker, whichever worker is scraped."""
        pools = self.report()
        self._metrics.pool_waiting.set(sum(pool.waiting for pool in pools.values()))
        for name, pool in pools.items():
            self._metrics.pool_connections.labels(name, "idle").set(pool.idle)
            self._metrics.pool_connections.labels(name, "busy").set(pool.size - pool.idle)
