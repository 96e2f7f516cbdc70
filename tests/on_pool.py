"""Runs what needs a pool of connections, from tests that are no coroutines."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from infra.db import postgres
from infra.settings import Settings

Result = TypeVar("Result")


def on_pool(database_url: str, settings: Settings, use: Callable[[Any], Coroutine[Any, Any, Result]]) -> Result:
    """Return what `use` makes of a pool of two patient connections."""

    async def go() -> Result:
        limits = settings.postgres.model_copy(update={"pool_size": 2, "max_overflow": 0, "checkout_timeout_s": 2.0})
        pool = postgres.open_pool(database_url, limits)
        pool.open()
        try:
            return await use(pool)
        finally:
            await pool.close()

    return asyncio.run(go())
