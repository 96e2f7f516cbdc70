"""What every asset is given: settings, servers, the results of steps, the model registry and the feature store.

One object per run. Servers are opened when first needed and kept for the run; nothing is opened by importing this.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from infra.clock import Clock, SystemClock
from infra.db.postgres import connect
from infra.endpoints import Endpoints, open_endpoints
from infra.errors import ServerUnavailable
from infra.settings import Settings, load_settings
from infra.telemetry import disable_telemetry
from pipelines.results.inputs import DataSnapshot
from pipelines.results.store import ResultStore, StepResult
from registry.contracts import MODEL_NAMES, MODEL_TRAINING, ArtifactKind

if TYPE_CHECKING:
    import psycopg

    from registry.mlflow.logged import MlflowStore
    from registry.mlflow.rest import MlflowRest


class Platform:
    """The platform a run works on."""

    def __init__(self, settings: Settings, endpoints: Endpoints | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.results = ResultStore.of(settings)
        self._given = endpoints
        self._leases = ExitStack()
        self._loaded: DataSnapshot | None = None
        self.heard: Callable[[str], None] = _unheard
        """What the running step says of its progress; replaced by who shows it."""

    @cached_property
    def endpoints(self) -> Endpoints:
        """Return the servers, started if need be; MLflow is among them."""
        if self._given is not None and self._given.mlflow_url:
            return self._given
        return self._leases.enter_context(open_endpoints(self.settings, mlflow=True))

    @property
    def database_url(self) -> str:
        """Return the URL of Postgres; MLflow is not started for it."""
        return self._databases.database_url if self._given is None else self._given.database_url

    @cached_property
    def _databases(self) -> Endpoints:
        opened = self.__dict__.get("endpoints")
        return opened or self._leases.enter_context(open_endpoints(self.settings))

    @contextmanager
    def connection(self, *, autocommit: bool = False) -> "Iterator[psycopg.Connection[Any]]":
        """Open a connection for offline work: no statement timeout; commits when the block ends well."""
        with connect(self.database_url, autocommit=autocommit, application_name="duet-pipelines") as opened:
            yield opened

    @cached_property
    def models(self) -> "MlflowStore":
        """Return the tracking server and model registry."""
        from registry.mlflow.logged import MlflowStore

        return MlflowStore(self._mlflow_url, self.settings.mlflow.experiment, self.endpoints.mlflow_token)

    @cached_property
    def registry(self) -> "MlflowRest":
        """Return the model registry for reading: stages, versions, downloads."""
        from registry.mlflow.aliases import registry_at

        rest = registry_at(self._mlflow_url, self.settings.mlflow, token=self.endpoints.mlflow_token)
        return self._leases.enter_context(closing(rest))

    @property
    def _mlflow_url(self) -> str:
        url = self.endpoints.mlflow_url
        if url is None:
            raise ServerUnavailable(
                "no MLflow server is configured or running; set `DUET_MLFLOW__URL` or start `duet up`"
            )
        return url

    def model_url(self, kind: ArtifactKind, version: int) -> str:
        """Return the address of a registered version in MLflow's UI."""
        return f"{self._mlflow_url.rstrip('/')}/#/models/{MODEL_NAMES[kind]}/versions/{version}?{MODEL_TRAINING}"

    def run_url(self, run_id: str) -> str | None:
        """Return the address of a run in Dagster's UI, where its port is known beforehand."""
        dagster = self.settings.dagster
        return f"http://{dagster.host}:{dagster.port}/runs/{run_id}" if dagster.port else None

    def snapshot(self, interactions: StepResult) -> DataSnapshot:
        """Return a snapshot, read once per run however many steps ask for it."""
        loaded = self._loaded
        if loaded is None or loaded.interactions_pointer != interactions:
            loaded = self._loaded = DataSnapshot.of(self.results, interactions)
        return loaded

    def docs_directory(self, run_id: str) -> Path:
        """Return where this run's Data Docs go."""
        return Path(self.settings.data_dir).absolute() / "data_docs" / run_id[:8]

    def close(self) -> None:
        """Give back the servers."""
        self._loaded = None
        self._leases.close()


def _unheard(_sentence: str) -> None:
    """Show nothing: the event log has it."""


class PlatformResource(dg.ConfigurableResource[Platform]):
    """Settings, servers, results of steps, model registry and feature store of this run."""

    data_dir: str | None = Field(default=None, description="folder of this run's files; none: `DUET_DATA_DIR`")

    def create_resource(self, context: dg.InitResourceContext) -> Platform:
        """Return the platform that the settings of the process describe."""
        del context
        disable_telemetry()
        return Platform(load_settings(**({} if self.data_dir is None else {"data_dir": Path(self.data_dir)})))

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Platform, None, None]:
        """Give a step or a tick its platform, and give back the servers afterwards."""
        with closing(self.create_resource(context)) as platform:
            yield platform
