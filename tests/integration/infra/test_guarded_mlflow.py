"""Attacks on a real MLflow server: the files of this account stay closed to whoever reaches the port."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from infra.db.postgres import connect
from infra.embedded.servers import stop_all
from infra.endpoints import Endpoints, open_endpoints
from infra.settings import Settings
from infra.web.token import bearer
from registry.contracts import ArtifactKind
from registry.errors import RegistryUnavailable
from registry.mlflow.rest import MlflowRest
from tests.conftest import forget_models, make_settings


@pytest.fixture(scope="module")
def settings(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(
        tmp_path_factory.mktemp("guarded"),
        database_url=endpoints.database_url,
        redis_url=endpoints.redis_url,
        web={"auth": "required"},
    )


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[Endpoints]:
    with open_endpoints(settings, mlflow=True) as started:
        forget_models(started)  # other servers of this worker had the same database
        yield started
        forget_models(started)
    stop_all(settings)


@pytest.fixture
def attacker(guarded: Endpoints) -> Iterator[httpx.Client]:
    """Somebody who was given the token, which must not open more than MLflow."""
    with httpx.Client(base_url=str(guarded.mlflow_url), headers=bearer(guarded.mlflow_token), timeout=30) as client:
        yield client


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("nobody else may read this")
    path.chmod(0o600)
    return path


def _call(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return client.post(f"/api/2.0/mlflow/{path}", json=body)


def test_a_local_location_for_artefacts_is_refused_in_every_spelling(attacker: httpx.Client, secret: Path) -> None:
    folder = str(secret.parent)
    for location in (f"file://{folder}", f"FILE://{folder}", f"file:{folder}", folder, "./", "http://127.0.0.1:1/"):
        for name in ("artifact_location", "artifactLocation"):
            answer = _call(attacker, "experiments/create", name="attack", **{name: location})
            assert answer.status_code == 400, (location, name, answer.text)
    assert _call(attacker, "registered-models/create", name="attack").status_code == 200
    answer = _call(attacker, "model-versions/create", name="attack", source=f"file://{folder}")
    assert (answer.status_code, "no place for artefacts" in answer.text) == (400, True)


def test_a_local_location_that_came_in_before_reads_and_writes_nothing(
    attacker: httpx.Client, guarded: Endpoints, secret: Path
) -> None:
    experiment = _call(attacker, "experiments/create", name="earlier").json()["experiment_id"]
    run = _call(attacker, "runs/create", experiment_id=experiment).json()["run"]["info"]["run_id"]
    with connect(guarded.database_url) as connection:
        connection.execute(
            "update mlflow.runs set artifact_uri = %s where run_uuid = %s", (f"file://{secret.parent}", run)
        )
    read = attacker.get("/get-artifact", params={"run_id": run, "path": secret.name})
    assert "nobody else" not in read.text
    assert read.status_code >= 400
    written = attacker.post(
        "/ajax-api/2.0/mlflow/upload-artifact", params={"run_uuid": run, "path": "planted"}, content=b"planted"
    )
    assert written.status_code >= 400
    assert [path.name for path in secret.parent.iterdir()] == [secret.name]


def test_without_the_token_nothing_is_told_and_with_it_every_client_works(
    guarded: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(guarded.mlflow_url)
    body = {"max_results": 10}
    assert httpx.post(f"{url}/api/2.0/mlflow/experiments/search", json=body, timeout=30).status_code == 401
    with MlflowRest(url) as rest, pytest.raises(RegistryUnavailable, match="DUET_MLFLOW__TOKEN"):
        rest.versions(ArtifactKind.RANKER)
    with MlflowRest(url, token=guarded.mlflow_token) as rest:
        assert rest.versions(ArtifactKind.RANKER) == []
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", guarded.environment()["MLFLOW_TRACKING_TOKEN"])
    assert MlflowClient(url).search_experiments()


def test_a_head_that_is_too_large_is_refused_before_anybody_is_asked_for_a_token(guarded: Endpoints) -> None:
    answer = httpx.get(str(guarded.mlflow_url), headers={"X-Long": "a" * 60_000}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_a_page_of_others_and_a_foreign_host_get_nothing(attacker: httpx.Client, settings: Settings) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1:1"}, {"Host": "evil.example"}):
        answer = attacker.post("/api/2.0/mlflow/experiments/search", json={"max_results": 1}, headers=headers)
        assert answer.status_code == 403, headers
    own = str(attacker.base_url).rstrip("/")
    answer = attacker.post("/api/2.0/mlflow/experiments/search", json={"max_results": 1}, headers={"Origin": own})
    assert answer.status_code == 200
    token = (settings.data_dir / "secrets" / "web_token").read_text().strip()
    assert httpx.get(f"{own}/?token={token}", timeout=30).status_code == 303
    assert token not in (settings.data_dir / "logs" / "mlflow.log").read_text()
