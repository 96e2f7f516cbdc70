"""A platform on the worker's real Postgres and Redis with a model registry in memory, and a town of twenty."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis

from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.resources import Platform
from tests.clocks import FixedClock
from tests.fakes import MemoryRegistry


@pytest.fixture
def clock() -> FixedClock:
    """A clock that tests move, from now on: Postgres has its own."""
    return FixedClock(SystemClock().now())


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def platform(
    settings: Settings,
    endpoints: Endpoints,
    connection: psycopg.Connection[Any],
    redis_client: redis.Redis,
    registry: MemoryRegistry,
    clock: FixedClock,
) -> Iterator[Platform]:
    connection.execute("delete from duet.deletions")
    connection.commit()
    features = settings.features.model_copy(update={"project": f"erasure_{uuid4().hex}"})
    made = Platform(
        settings.model_copy(update={"features": features}), replace(endpoints, mlflow_url="http://127.0.0.1:9"), clock
    )
    made.__dict__["registry"] = registry
    yield made
    made.close()
