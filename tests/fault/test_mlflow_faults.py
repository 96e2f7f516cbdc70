"""Fault 13: MLflow is away at the start, while the service watches it, and in the middle of a promotion."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.cli.app import run
from infra.endpoints import Endpoints
from registry.contracts import MODEL_NAMES, PRODUCTION, ReleaseVersions
from registry.mlflow.logged import MlflowStore
from registry.mlflow.rest import MlflowRest
from tests.fault.proxy import HARD, Fault, Mode, each_hard
from tests.fault.stage import RELEASE, Stage, staged
from tests.fault.village import PEOPLE, village_ranker
from tests.releases import judge
from tests.serving_world import write_artifacts

pytestmark = pytest.mark.timeout(400)

TIMEOUT = {"MLFLOW__REQUEST_TIMEOUT_S": "1"}
NEXT = "e2-i2-r2"


@pytest.fixture(scope="module")
def running(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service that began while MLflow did not answer, over a registry with two candidates."""
    for name in MODEL_NAMES.values():
        url = f"{mlflow_endpoints.mlflow_url}/api/2.0/mlflow/registered-models/delete"
        httpx.request("DELETE", url, json={"name": name}, timeout=30)
    root = tmp_path_factory.mktemp("registry")
    store = MlflowStore(str(mlflow_endpoints.mlflow_url), "faults")
    for number, people in enumerate((PEOPLE[:100], PEOPLE)):
        for kind, path in write_artifacts(root / str(number), people, model=village_ranker()).items():
            store.log_version(kind, path, release_candidate=f"rc-{number}")
    with MlflowRest(str(mlflow_endpoints.mlflow_url)) as registry:
        judge(registry, ReleaseVersions.parse(NEXT))
    with staged(mlflow_endpoints, root, mlflow_at_start=Mode.BLACK_HOLE, **TIMEOUT) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    running.heal()
    yield running
    running.heal()


def test_a_service_that_starts_without_mlflow_serves_the_last_good_release(running: Stage) -> None:
    report = running.health()
    assert report["release"]["release"] == RELEASE
    assert report["mlflow"]["status"] == "down"
    assert report["status"] in {"ready", "degraded"}
    running.judge(running.calm.values())


@each_hard("mlflow")
def test_the_watch_loop_without_mlflow_is_not_felt_by_anybody(stage: Stage, fault: Fault) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        stage.set("mlflow", fault)
        seen = crowd.watch(2.0)
        stage.heal()
        crowd.watch(0.3)
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)
    stage.judge_level(crowd.answers, 1)
    assert {answer.body["release"] for answer in crowd.answers} == {RELEASE}


@pytest.mark.parametrize(
    "fault",
    [HARD[Mode.DOWN], HARD[Mode.CUT], pytest.param(HARD[Mode.BLACK_HOLE], marks=pytest.mark.long)],
    ids=str,
)
def test_a_promotion_without_mlflow_is_refused_in_a_sentence_and_moves_nothing(
    stage: Stage,
    fault: Fault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage.set("mlflow", fault)
    code, said = promote(stage.through, tmp_path, monkeypatch, capsys)
    assert code == 1, said
    assert "MLflow" in said
    assert "Traceback" not in said
    with MlflowRest(str(stage.endpoints.mlflow_url)) as registry:
        assert registry.in_stage(PRODUCTION) == {}


def test_a_release_whose_download_breaks_off_is_not_served_and_is_fetched_when_the_network_heals(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        stage.mlflow.set(Mode.CUT, 4_000)  # what stands in a stage fits, an artefact does not
        # It would wait a minute for workers that cannot have the release yet.
        code, said = promote(stage.endpoints, tmp_path, monkeypatch, capsys, "--no-wait")
        assert (code, f"{NEXT} is in Production" in said) == (0, True), said
        crowd.watch(2.0)
        assert {answer.body["release"] for answer in crowd.answers} == {RELEASE}
        stage.heal()
        crowd.wait(lambda: crowd.answers[-1].body.get("release") == NEXT, "the promoted release")
        swapped = time.monotonic()
        crowd.watch(0.5)
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_level(crowd.answers, 1)
    assert {answer.body["release"] for answer in crowd.since(swapped)} == {NEXT}


def promote(
    endpoints: Endpoints,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *words: str,
) -> tuple[int, str]:
    """Run `duet promote` with these servers; return its exit status and what it said."""
    with monkeypatch.context() as patch:
        for name, value in {**endpoints.environment(), "DUET_MLFLOW__REQUEST_TIMEOUT_S": "1", "COLUMNS": "250"}.items():
            patch.setenv(name, value)
        code = run(["--data-dir", str(folder / "duet"), "promote", *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err
