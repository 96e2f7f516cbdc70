"""The only module that uses what Dagster marks as private; everything else goes through these names.

Private names of Dagster anywhere else are refused by `tests/architecture`; the test in brackets fails where Dagster
changes one.

- `InMemoryJob`, `InstanceRef`, `execute_run_iterator`, `NO_COMPUTE_LOGS`: a run in this process that shows in the UI,
  under an id that is known before it starts (`test_training`).
- `ConfigurableClassData`, `LocalArtifactStorage`, `LocalComputeLogManager`: what `dagster.yaml` names, with our data
  folder as the default (`test_as_their_users`).
- `PostProcessingError`, `replace_config_schema`: refuse a value while a launch is planned (`test_launchpad`).
- `DagsterPostgresStorage`'s engines: one that keeps its connection (`test_storage`).
- `JobOfAssets`: the type of what `define_asset_job` returns, which has no public name (mypy).
"""

from weakref import WeakValueDictionary

from dagster import Field, OpDefinition
from dagster._config.errors import PostProcessingError
from dagster._core.definitions.definition_config_schema import convert_user_facing_definition_config_schema
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as JobOfAssets
from dagster._core.execution.api import execute_run_iterator
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import Engine, create_engine

__all__ = [
    "NO_COMPUTE_LOGS",
    "ConfigurableClassData",
    "InMemoryJob",
    "InstanceRef",
    "JobOfAssets",
    "LocalArtifactStorage",
    "LocalComputeLogManager",
    "PostProcessingError",
    "execute_run_iterator",
    "keep_connection",
    "replace_config_schema",
]

NO_COMPUTE_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}

_engines: WeakValueDictionary[str, Engine] = WeakValueDictionary()


def replace_config_schema(op: OpDefinition, schema: Field) -> None:
    """Give an op another config schema: its decorators take none beside a typed `config`."""
    op._config_schema = convert_user_facing_definition_config_schema(schema)  # noqa: SLF001 - see above


def keep_connection(storage: DagsterPostgresStorage) -> None:
    """Let a process use one connection again for all that Dagster notes; threads at the same time get more.

    Dagster opens one for each statement otherwise, some hundred times in a run. A webserver sets pools of its own. The
    code server makes an instance for each tick and never closes its engine: with a pool of its own each would hold a
    connection until garbage is collected, so all of a process have one pool.
    """
    url = storage.postgres_url
    engine = _engines.get(url)
    if engine is None:
        made = create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True)
        engine = _engines.setdefault(url, made)
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part._engine = engine  # noqa: SLF001 - see above
