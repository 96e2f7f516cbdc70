"""What lands in a real MLflow: runs, files, versions; and the commands on top of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from feature_repo.schema import offered_schema
from infra.cli.app import run
from infra.endpoints import Endpoints
from registry.contracts import MODEL_NAMES, PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import RegistrationFailed
from registry.mlflow.logged import MlflowStore
from registry.mlflow.rest import MlflowRest
from registry.promotion.audit import PostgresPromotionLog
from registry.promotion.promotion import promote
from registry.promotion.release_cache import ReleaseCache
from tests.releases import judge, write_release

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[ArtifactKind, Path]]:
    root = tmp_path_factory.mktemp("releases")
    return [write_release(root, seed, schema=offered_schema()) for seed in range(2)]


@pytest.fixture
def store(empty_mlflow: Endpoints) -> MlflowStore:
    return MlflowStore(str(empty_mlflow.mlflow_url), "logging")


@pytest.fixture
def rest(empty_mlflow: Endpoints) -> Iterator[MlflowRest]:
    with MlflowRest(str(empty_mlflow.mlflow_url)) as rest:
        yield rest


def api(endpoints: Endpoints, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
    answer = httpx.request(method, f"{endpoints.mlflow_url}/api/2.0/{path}", timeout=30, **kwargs)
    content: dict[str, Any] = answer.raise_for_status().json()
    return content


def test_a_version_carries_all_that_explains_it(
    store: MlflowStore, rest: MlflowRest, mlflow_endpoints: Endpoints, written: list[dict[ArtifactKind, Path]]
) -> None:
    number = store.log_version(
        ArtifactKind.RANKER,
        written[0][ArtifactKind.RANKER],
        params={"eta": 0.1, "note": "x" * 7000},
        metrics={"recall@100": 0.5},
        curves={"validation_log_loss": [0.6, 0.5, 0.4]},
        figures={"curve.png": PNG},
        tables={"importance.csv": "name,gain\n"},
        tags={"team": "data"},
        release_candidate="rc-1",
        dagster_run_id="abc",
        dagster_url="http://127.0.0.1:3000/runs/abc",
    )
    version = rest.version(ArtifactKind.RANKER, number)
    assert "| recall_at_100 | 0.5 |" in version.description
    assert "[Dagster run](http://127.0.0.1:3000/runs/abc)" in version.description
    assert version.tags["dagster_run_id"] == "abc"
    assert version.tags["team"] == "data"
    assert '"kind": "ranker"' in version.tags["manifest"]
    run_data = api(mlflow_endpoints, "GET", "mlflow/runs/get", params={"run_id": version.run_id})["run"]
    assert run_data["info"]["status"] == "FINISHED"
    params = {row["key"]: row["value"] for row in run_data["data"]["params"]}
    assert params["eta"] == "0.1"
    assert params["order"] == "ranker"
    assert {row["key"] for row in run_data["data"]["metrics"]} == {"recall_at_100", "validation_log_loss"}
    named = {"run_id": version.run_id, "metric_key": "validation_log_loss"}
    steps = api(mlflow_endpoints, "GET", "mlflow/metrics/get-history", params=named)["metrics"]
    assert [(row["step"], row["value"]) for row in steps] == [(1, 0.6), (2, 0.5), (3, 0.4)]
    assert run_data["info"]["run_name"] == "rc-1 ranker"
    assert {row["key"]: row["value"] for row in run_data["data"]["tags"]}["mlflow.source.name"] == "duet ranker"
    files = {
        file["path"]
        for path in ("", "figures", "tables", "artifact")
        for file in api(
            mlflow_endpoints, "GET", "mlflow/artifacts/list", params={"run_id": version.run_id, "path": path}
        ).get("files", [])
    }
    assert {"figures/curve.png", "tables/importance.csv", "artifact/model.ubj", "artifact/manifest.json"} <= files
    assert "artifact/MLmodel" in files
    assert not any("pkl" in file or "pickle" in file for file in files)


def test_an_evaluation_is_a_run_without_a_version(store: MlflowStore, mlflow_endpoints: Endpoints) -> None:
    run_id = store.log_evaluation(
        name="evaluation", metrics={"ndcg_at_10": 0.4}, figures={"methods": PNG}, tables={"methods": "a,b\n"}
    )
    found = api(mlflow_endpoints, "GET", "mlflow/runs/get", params={"run_id": run_id})["run"]
    assert found["info"]["run_name"] == "evaluation"
    assert store.run_url(run_id).endswith(f"/runs/{run_id}?workflowType=machine_learning")


def test_a_version_shows_its_data_and_is_named_after_its_first_release(
    store: MlflowStore, rest: MlflowRest, mlflow_endpoints: Endpoints, written: list[dict[ArtifactKind, Path]]
) -> None:
    def logged(candidate: str | None) -> dict[str, Any]:
        directory = written[0][ArtifactKind.EMBEDDING]
        number = store.log_version(ArtifactKind.EMBEDDING, directory, release_candidate=candidate)
        run_id = rest.version(ArtifactKind.EMBEDDING, number).run_id
        found: dict[str, Any] = api(mlflow_endpoints, "GET", "mlflow/runs/get", params={"run_id": run_id})["run"]
        return found

    first = logged(None)
    assert first["info"]["run_name"] == "embedding 1"
    [data] = first["inputs"]["dataset_inputs"]
    assert data["dataset"]["name"] == "people and interactions"
    assert data["dataset"]["digest"] == "data-0"
    assert logged("e1-i1-r1")["info"]["run_name"] == "e1-i1-r1 embedding"
    assert logged("e1-i2-r2")["info"]["run_name"] == "e1-i1-r1 embedding"


def test_a_run_that_dies_midway_is_failed_and_registers_nothing(
    store: MlflowStore,
    rest: MlflowRest,
    mlflow_endpoints: Endpoints,
    written: list[dict[ArtifactKind, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(store._client, "log_artifact", die)
        with pytest.raises(RegistrationFailed, match="disk full"):
            store.log_version(ArtifactKind.INDEX, written[0][ArtifactKind.INDEX], run_name="dying")
    assert rest.versions(ArtifactKind.INDEX) == []
    experiment = api(mlflow_endpoints, "GET", "mlflow/experiments/get-by-name", params={"experiment_name": "logging"})
    runs = api(
        mlflow_endpoints,
        "POST",
        "mlflow/runs/search",
        json={
            "experiment_ids": [experiment["experiment"]["experiment_id"]],
            "filter": "attributes.run_name = 'dying'",
        },
    )
    assert [row["info"]["status"] for row in runs["runs"]] == ["FAILED"]
    assert store.log_version(ArtifactKind.INDEX, written[0][ArtifactKind.INDEX]) == 1


def test_the_commands_promote_roll_back_and_tell(
    store: MlflowStore,
    rest: MlflowRest,
    mlflow_endpoints: Endpoints,
    written: list[dict[ArtifactKind, Path]],
    connection: psycopg.Connection[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in mlflow_endpoints.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "250")

    def duet(*words: str) -> tuple[int, str]:
        code = run(["--data-dir", str(tmp_path / "duet"), *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    code, said = duet("promote")
    assert (code, "no complete release candidate" in said) == (1, True), said
    for number, paths in enumerate(written):
        for kind, path in paths.items():
            store.log_version(kind, path, release_candidate=f"rc-{number}")
    code, said = duet("promote", "--release-candidate", "rc-0")
    assert (code, "has not been judged by the gates: run `duet judge e1-i1-r1`" in said) == (1, True), said
    judge(rest, ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2))
    code, said = duet("promote", "--release-candidate", "rc-0", "--reason", "first")
    assert (code, "e1-i1-r1 is in Production" in said) == (0, True), said
    code, said = duet("promote")
    assert (code, "e2-i2-r2 is in Production" in said) == (0, True), said
    code, said = duet("promote", "--embedding", "1", "--index", "2", "--ranker", "1")
    assert (code, "index 2 was built from embedding" in said) == (1, True), said
    code, said = duet("promote", "--embedding", "1")
    assert (code, "name all three" in said) == (2, True), said
    challenger = ("promote", "--staging", "--embedding", "2", "--index", "2", "--ranker", "1")
    judge(rest, ReleaseVersions(2, 2, 1), passed=False)
    code, said = duet(*challenger)
    assert (code, "recall: index recall 0.5 is below 0.9" in said) == (1, True), said
    code, said = duet(*challenger, "--force")
    assert (code, "without a reason: add `--reason` to `--force`" in said) == (1, True), said
    code, said = duet(*challenger, "--force", "--reason", "a rehearsal")
    assert (code, "e2-i2-r1 is in Staging" in said) == (0, True), said
    assert "e2-i2-r1 is staged, and served once an experiment starts" in said
    code, said = duet("rollback", "--reason", "worse")
    assert (code, "e1-i1-r1 is back in Production" in said) == (0, True), said
    assert rest.resolve_stage(PRODUCTION) == ReleaseVersions(1, 1, 1)
    assert rest.aliases(ArtifactKind.INDEX)["champion"] == 1
    code, said = duet("rollback", "--to", "nonsense")
    assert (code, "is not a release id" in said) == (1, True), said
    code, said = duet("releases")
    assert code == 0, said
    for expected in ("e1-i1-r1", "e2-i2-r2", "rolled back from e2-i2-r2", "worse", "first", "Production"):
        assert expected in said
    code, said = duet("releases", "--at", "2020-01-01")
    assert (code, "no release was in Production" in said) == (0, True), said
    assert len(list((tmp_path / "duet" / "releases" / "embedding").iterdir())) == 2
    models = api(mlflow_endpoints, "GET", "mlflow/registered-models/search")["registered_models"]
    assert {model["name"] for model in models} == set(MODEL_NAMES.values())


def test_the_commands_refuse_a_release_that_this_version_cannot_serve_before_anything_moves(
    store: MlflowStore,
    rest: MlflowRest,
    mlflow_endpoints: Endpoints,
    written: list[dict[ArtifactKind, Path]],
    connection: psycopg.Connection[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in mlflow_endpoints.environment().items():
        monkeypatch.setenv(name, value)
    served, older = ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2)
    for paths in (written[0], write_release(tmp_path / "older", 7, schema="0" * 64)):
        for kind, path in paths.items():
            store.log_version(kind, path, release_candidate="rc")
    judge(rest, served, older)
    log = PostgresPromotionLog(connection)
    cache = ReleaseCache(tmp_path / "duet" / "releases")
    for versions in (older, served):  # an older version of Duet served the first
        promote(rest, log, versions, actor="ada", way="cli", feature_schema=None, cache=cache)
    connection.commit()
    for command in (
        ("promote", "--embedding", "2", "--index", "2", "--ranker", "2"),
        ("promote", "--embedding", "2", "--index", "2", "--ranker", "2", "--force", "--reason", "now"),
        ("promote", "--staging", "--embedding", "2", "--index", "2", "--ranker", "2"),
        ("rollback",),
        ("rollback", "--to", "e2-i2-r2"),
    ):
        assert run(["--data-dir", str(tmp_path / "duet"), *command]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "was trained on `000000000000" in said
        assert "train it again" in said
    assert rest.resolve_stage(PRODUCTION) == served
    assert rest.in_stage(STAGING) == {}
    assert log.open_pin() is None
    assert [entry.versions for entry in log.history()] == [older, served]


def test_a_server_that_is_gone_cannot_register(
    written: list[dict[ArtifactKind, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    store = MlflowStore("http://127.0.0.1:9", "logging")
    with pytest.raises(RegistrationFailed, match=r"could not be logged to MLflow at http://127\.0\.0\.1:9"):
        store.log_version(ArtifactKind.INDEX, written[0][ArtifactKind.INDEX])
