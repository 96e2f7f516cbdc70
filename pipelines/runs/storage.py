"""Where Dagster keeps its own state: run history in our Postgres, files under the data directory.

The URL comes from the settings: with none set, the embedded Postgres is started and kept by a lease for as long as
this process lives, so that `DAGSTER_HOME=$PWD dagster dev` works with nothing configured.
"""

import atexit
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_postgres import DagsterPostgresStorage

from infra.endpoints import open_endpoints
from infra.settings import Settings, load_settings
from pipelines.dagster_private import (
    ConfigurableClassData,
    LocalArtifactStorage,
    LocalComputeLogManager,
    keep_connection,
)

CONFIG = {"data_dir": dg.Field(dg.Noneable(str), default_value=None, is_required=False)}


class DuetStorage(DagsterPostgresStorage):  # type: ignore[misc]  # the library ships no types
    """Runs, events and schedules in the schema `dagster` of our Postgres."""

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Accept the URL of a database that is open already, or a data directory; none means those in the settings."""
        return CONFIG | {"url": dg.Field(dg.Noneable(str), default_value=None, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "DuetStorage":
        """Build the storage of this process, starting the embedded Postgres when no URL is set."""
        url = config_value.get("url") or _dagster_url(config_value.get("data_dir"))
        storage = cls(postgres_url=url, inst_data=inst_data)
        keep_connection(storage)
        return storage


class DuetArtifacts(LocalArtifactStorage):
    """Dagster's own small files under the data directory."""

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Accept an explicit data directory; none means the one in the settings."""
        return CONFIG

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "DuetArtifacts":
        """Build the storage below the data directory."""
        return cls(base_dir=str(_dagster_directory(config_value.get("data_dir"))), inst_data=inst_data)


class DuetComputeLogs(LocalComputeLogManager):
    """What steps print, under the data directory."""

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Accept an explicit data directory; none means the one in the settings."""
        return CONFIG

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "DuetComputeLogs":
        """Build the log store below the data directory."""
        base_dir = _dagster_directory(config_value.get("data_dir")) / "logs"
        return cls(base_dir=str(base_dir), inst_data=inst_data)


def _settings(data_dir: str | None) -> Settings:
    return load_settings() if data_dir is None else load_settings(data_dir=Path(data_dir))


def _dagster_directory(data_dir: str | None) -> Path:
    directory = Path(_settings(data_dir).data_dir).absolute() / "dagster"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@cache
def _dagster_url(data_dir: str | None) -> str:
    """Return the URL of this process's Dagster storage; the lease on an embedded server ends with the process."""
    lease = ExitStack()
    endpoints = lease.enter_context(open_endpoints(_settings(data_dir)))
    atexit.register(lease.close)
    return endpoints.sqlalchemy_url("dagster")
