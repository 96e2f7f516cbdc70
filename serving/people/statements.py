"""Statements of the calls that write and read people and interactions: bounded, behind a breaker, refused in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import psycopg

from infra.db.connection_pool import ConnectionPool
from infra.db.pooled import fetch_all
from infra.errors import NoConnection
from serving.errors import BreakerOpen, StorageUnavailable
from serving.resilience.breaker import Breaker

PART: Final = 200
"""Rows of one statement of a batch: it must end within the time that a statement has."""
Row = TypeVar("Row")


def parts(rows: Mapping[int, Row], size: int) -> Iterator[dict[int, Row]]:
    """Yield up to `size` of the rows at a time, each by its place."""
    items = list(rows.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])


class Storage:
    """Postgres as a call sees it; every statement is bounded by `timeout_s`."""

    def __init__(self, pool: ConnectionPool, breaker: Breaker, timeout_s: float) -> None:
        self._pool = pool
        self._breaker = breaker
        self._timeout_s = timeout_s

    async def rows(self, statement: bytes, parameters: Sequence[Any], again: str) -> list[tuple[Any, ...]]:
        """Run one statement, which must be harmless to repeat, and return its rows.

        Raises StorageUnavailable, which ends with `again`, and psycopg's IntegrityError.
        """
        try:
            return await self._breaker.call(lambda: fetch_all(self._pool, statement, parameters), self._timeout_s)
        except psycopg.IntegrityError:
            raise
        except BreakerOpen as error:
            raise StorageUnavailable(
                f"The database is away: {again}", retry_after_s=max(1, math.ceil(error.retry_after_s))
            ) from error
        except (psycopg.Error, NoConnection, OSError, TimeoutError) as error:
            raise StorageUnavailable(f"The database did not answer: {again}", retry_after_s=1) from error
