"""Statements of the calls that write and read people and interactions: bounded, behind a breaker, refused in words."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
Result = TypeVar("Result")


async def store_in_parts(
    rows: Mapping[int, Row],
    store: Callable[[dict[int, Row]], Awaitable[dict[int, Result]]],
    failed: Callable[[int, Row, StorageUnavailable], Result],
    *,
    counts: Callable[[Result], bool] = lambda _result: True,
) -> dict[int, Result]:
    """Store rows, a part of them in each statement, and return what became of each by its place.

    Once the database is away, `failed` says so of all that are left. Raises StorageUnavailable instead where nothing of
    what was done until then `counts`.
    """
    results: dict[int, Result] = {}
    away: StorageUnavailable | None = None
    items = list(rows.items())
    for start in range(0, len(items), PART):
        part = dict(items[start : start + PART])
        if away is None:
            try:
                results |= await store(part)
                continue
            except StorageUnavailable as error:
                away = error
                if not any(counts(result) for result in results.values()):
                    raise
        results |= {place: failed(place, row, away) for place, row in part.items()}
    return results


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
