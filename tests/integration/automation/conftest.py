"""A platform on the worker's real Postgres with a model registry in memory, and a Dagster instance of its own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import psycopg
import pytest

from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.resources import Platform
from tests.clocks import FixedClock
from tests.fakes import MemoryRegistry


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def platform(
    settings: Settings,
    endpoints: Endpoints,
    connection: psycopg.Connection[Any],
    registry: MemoryRegistry,
    clock: FixedClock,
) -> Iterator[Platform]:
    """No server of MLflow answers where this platform looks for one."""
    connection.execute("delete from duet.deletions")
    connection.commit()
    made = Platform(settings, replace(endpoints, mlflow_url="http://127.0.0.1:9"), clock)
    made.__dict__["registry"] = registry
    yield made
    made.close()


@pytest.fixture(scope="session")
def instance_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One on this disk: what evaluates a tick opens it anew, as the daemon does."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture
def instance(instance_on_disk: dg.DagsterInstance) -> dg.DagsterInstance:
    """A Dagster instance that remembers nothing."""
    instance_on_disk.wipe()
    return instance_on_disk
