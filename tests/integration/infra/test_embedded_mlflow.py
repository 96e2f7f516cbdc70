"""The MLflow server works on our Postgres and ends with its last user, also after a SIGKILL."""

from collections.abc import Iterator

import httpx
import pytest

from infra.db.postgres import connect
from infra.embedded.mlflow import EmbeddedMlflow
from infra.embedded.processes import identity, working_in
from infra.embedded.servers import inspect, stop_all
from infra.endpoints import open_endpoints
from infra.settings import Settings
from tests.killing import kill


@pytest.fixture
def with_mlflow(connected_settings: Settings) -> Iterator[Settings]:
    yield connected_settings
    stop_all(connected_settings)


def test_mlflow_is_started_shared_recovered_and_stopped(with_mlflow: Settings) -> None:
    with open_endpoints(with_mlflow, mlflow=True) as endpoints:
        assert endpoints.mlflow_url is not None
        assert httpx.get(f"{endpoints.mlflow_url}/health", timeout=10).text == "OK"
        with connect(endpoints.database_url) as connection:
            assert connection.execute("select to_regclass('mlflow.model_versions') is not null").fetchone() == (True,)
        pid = next(server.pid for server in inspect(with_mlflow) if server.name == "mlflow") or 0
        family = working_in(with_mlflow.data_dir / "mlflow", "")
        assert pid in [process.pid for process in family]
        password = endpoints.database_url.rpartition("@")[0]
        assert not [process for process in family if password in " ".join(process.cmdline())]

        child = with_mlflow.model_copy(
            update={"mlflow": with_mlflow.mlflow.model_copy(update={"url": endpoints.mlflow_url})}
        )
        with open_endpoints(child, mlflow=True) as shared:
            assert shared.mlflow_url == endpoints.mlflow_url

        kill(pid)
        with open_endpoints(with_mlflow, mlflow=True) as recovered:
            assert recovered.mlflow_url == endpoints.mlflow_url
            assert identity(pid) is None
    assert working_in(with_mlflow.data_dir / "mlflow", "") == []
    assert not any(server.is_running for server in inspect(with_mlflow))


def test_a_server_on_another_database_is_not_taken_for_ours(with_mlflow: Settings) -> None:
    server = EmbeddedMlflow(with_mlflow, "postgresql+psycopg2://a@h/one")
    server.folder.mkdir(parents=True)
    other = EmbeddedMlflow(with_mlflow, "postgresql+psycopg2://a@h/two")
    assert server.running() is None
    assert other.running() is None
