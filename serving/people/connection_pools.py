"""The pools of database connections as health and metrics show them."""

from collections.abc import Mapping

from infra.db.connection_pool import ConnectionPool, PoolStats
from infra.metrics import ServingMetrics
from serving.api.health import PoolReport


class Pools:
    """The pools of a serving process, by name."""

    def __init__(self, pools: Mapping[str, ConnectionPool], metrics: ServingMetrics) -> None:
        self._pools = pools
        self._metrics = metrics
        self._refused = dict.fromkeys(pools, 0)
        for name in pools:
            metrics.pool_refusals.labels(name)  # the series is there before anything is refused

    def report(self) -> dict[str, PoolReport]:
        """Return the numbers of each pool."""
        return {
            name: PoolReport(size=now.size, idle=now.idle, waiting=now.waiting, most=now.most, message=now.problem)
            for name, now in self._stats().items()
        }

    def note(self) -> None:
        """Put the numbers into the metrics of this worker, whichever worker is scraped."""
        stats, metrics = self._stats(), self._metrics
        metrics.pool_waiting.set(sum(now.waiting for now in stats.values()))
        for name, now in stats.items():
            metrics.pool_connections.labels(name, "idle").set(now.idle)
            metrics.pool_connections.labels(name, "busy").set(now.size - now.idle)
            metrics.pool_limit.labels(name).set(now.most)
            metrics.pool_refusals.labels(name).inc(now.refused - self._refused[name])
            self._refused[name] = now.refused

    def _stats(self) -> dict[str, PoolStats]:
        return {name: pool.stats() for name, pool in self._pools.items()}
