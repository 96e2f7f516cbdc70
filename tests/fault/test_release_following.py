"""A real service follows promotions and rollbacks, whatever becomes of MLflow, and nobody who asks feels any of it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from infra.cli.app import run
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from registry.contracts import MODEL_NAMES, PRODUCTION, ReleaseVersions
from registry.mlflow.logged import MlflowStore
from registry.mlflow.observer import observe
from registry.mlflow.rest import MlflowRest
from registry.promotion.audit import PostgresPromotionLog
from registry.promotion.workers import live_workers
from tests.crafted import crash_the_reader
from tests.fault.proxy import Fault, Mode
from tests.fault.stage import RELEASE, Stage, staged
from tests.fault.village import PEOPLE, village_ranker
from tests.releases import judge
from tests.serving_world import write_artifacts
from tests.waiting import slowness, until

pytestmark = pytest.mark.timeout(600)

SECOND, THIRD, CRAFTED = "e2-i2-r2", "e3-i3-r3", "e4-i4-r4"
ROUNDS = [15, 50]
# The poll of MLflow is slow here, so that whatever is felt at once was felt through Postgres.
TOLD = {
    "MLFLOW__REQUEST_TIMEOUT_S": "10",
    "SERVING__RELEASE_POLL_S": "600",
    "SERVING__EXPERIMENT_POLL_S": "0.5",
    "SERVING__DEADLINE_MS": "3000",
    "REDIS__SOCKET_TIMEOUT_S": "2",  # a busy machine is not what is tried here
}
Duet = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def running(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The village, over a registry with four releases that answer the same; the last kills whoever reads it."""
    url = str(mlflow_endpoints.mlflow_url)
    for name in MODEL_NAMES.values():
        httpx.request("DELETE", f"{url}/api/2.0/mlflow/registered-models/delete", json={"name": name}, timeout=30)
    root = tmp_path_factory.mktemp("following")
    store = MlflowStore(url, "following")
    for dataset in ("town", "second", "third", "crafted"):
        paths = write_artifacts(root / dataset, PEOPLE, model=village_ranker(), dataset=dataset)
        if dataset == "crafted":
            crash_the_reader(paths)
        for kind, path in paths.items():
            store.log_version(kind, path)
    with MlflowRest(url) as registry:
        judge(registry, *map(ReleaseVersions.parse, (RELEASE, SECOND, THIRD, CRAFTED)))
    with staged(mlflow_endpoints, root, **TOLD) as stage:
        yield stage


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    running.heal()
    yield running
    running.heal()


@pytest.fixture
def duet(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path) -> Duet:
    """Run a `duet` command on the machine of the service, through the proxies, as the service does."""

    def command(*words: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            for name, value in {**stage.through.environment(), "COLUMNS": "250"}.items():
                patch.setenv(name, value)
            code = run(["--data-dir", str(root), *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return command


@pytest.fixture
def root(stage: Stage) -> Path:
    return stage.service.log.parent / "duet"


def within_s(stage: Stage) -> float:
    """Return ten seconds; as much more as a busy machine makes everything slower."""
    return 10.0 * max(slowness(), stage.calm_p99_s / 0.05)


def promote(duet: Duet, release: str, *, wait: bool = False) -> None:
    versions = ReleaseVersions.parse(release)
    parts = ("--embedding", versions.embedding, "--index", versions.index, "--ranker", versions.ranker)
    code, said = duet("promote", "--wait" if wait else "--no-wait", *map(str, parts))
    assert code == 0, said
    assert ("served by 1 of 1 workers" in said) is wait, said


def until_served(stage: Stage, release: str, *, since: float | None = None) -> None:
    spent_s = 0.0 if since is None else time.monotonic() - since
    until(
        lambda: stage.health()["release"]["release"] == release,
        within_s(stage) - spent_s,
        lambda: stage.health()["release"],
    )


def test_a_promotion_is_felt_by_the_worker_without_waiting_for_the_poll(stage: Stage, duet: Duet) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        for release in (RELEASE, SECOND, THIRD):
            promote(duet, release, wait=True)
            until_served(stage, release)
        seen = crowd.watch(0.5)
    stage.judge(crowd.answers)
    stage.judge_level(crowd.answers, 1)
    assert {answer.body["release"] for answer in seen} == {THIRD}


def test_each_worker_tells_in_postgres_what_it_serves_and_could_go_back_to(stage: Stage) -> None:
    with connect(stage.endpoints.database_url, autocommit=True) as connection:
        until(
            # The copy is kept, and told of, after the release serves.
            lambda: (
                [(worker.release, worker.copies) for worker in live_workers(connection)]
                == [(THIRD, [THIRD, SECOND, RELEASE])]
            ),
            instead=lambda: live_workers(connection),
        )
        (worker,) = live_workers(connection)
    assert worker.pid in {child.pid for child in stage.service.workers()}
    assert (worker.refused, worker.pin_id) == (None, None)


@pytest.mark.parametrize(
    "fault",
    [Fault(Mode.DOWN), pytest.param(Fault(Mode.BLACK_HOLE), marks=pytest.mark.long), Fault(Mode.DELAY, 3.0)],
    ids=str,
)
def test_a_rollback_without_mlflow_serves_in_time_and_mlflow_follows_when_it_is_back(
    stage: Stage, duet: Duet, fault: Fault
) -> None:
    promote(duet, SECOND)
    promote(duet, THIRD)
    until_served(stage, THIRD)
    with stage.crowd() as crowd:
        crowd.until_whole()
        stage.mlflow.set(fault.mode, fault.amount)
        began = time.monotonic()
        code, said = duet("rollback", "--reason", "worse")
        assert code == 0, said
        assert f"{SECOND} is back in Production" in said
        assert "is pinned" in said
        until_served(stage, SECOND, since=began)
        report = stage.health()["release"]
        assert (report["pinned"], report["refused"]) == (SECOND, None)
        assert "duet_release_pinned" in httpx.get(f"{stage.service.url}/metrics", trust_env=False).text
        crowd.watch(0.3)
    stage.judge(crowd.answers)
    stage.judge_level(crowd.answers, 1)
    stage.heal()
    with (
        MlflowRest(str(stage.endpoints.mlflow_url)) as registry,
        connect(stage.endpoints.database_url, autocommit=True) as connection,
    ):
        log = PostgresPromotionLog(connection)
        # The worker tells MLflow too, as soon as it can: a slow MLflow may know a part of it already.
        if fault.mode is not Mode.DELAY:
            assert registry.resolve_stage(PRODUCTION).release_id == THIRD, "MLflow was not told yet"

        def followed() -> bool:
            observe(registry, log)
            return log.open_pin() is None

        until(followed)
        assert registry.resolve_stage(PRODUCTION).release_id == SECOND
        assert registry.aliases(next(iter(MODEL_NAMES)))["champion"] == 2
        assert [entry.way for entry in log.history()] == ["cli"] * len(log.history())
    until(lambda: stage.health()["release"]["pinned"] is None)
    assert stage.health()["release"]["release"] == SECOND


def test_a_crafted_model_kills_only_the_trial_and_the_reason_is_seen_everywhere(
    stage: Stage, duet: Duet, root: Path
) -> None:
    promote(duet, THIRD)
    until_served(stage, THIRD)
    workers = {worker.pid for worker in stage.service.workers()}
    with stage.crowd() as crowd:
        crowd.until_whole()
        promote(duet, CRAFTED)
        crowd.wait(lambda: stage.health()["release"]["refused"] is not None, "the refusal")
        crowd.watch(0.5)
    stage.judge(crowd.answers)
    stage.judge_level(crowd.answers, 1)
    assert {answer.body["release"] for answer in crowd.answers} == {THIRD}
    assert {worker.pid for worker in stage.service.workers()} == workers
    assert "which ended by SIG" in stage.health()["release"]["refused"]
    metrics = httpx.get(f"{stage.service.url}/metrics", trust_env=False).text
    assert 'duet_release_refused{stage="production"} 1.0' in metrics
    assert json.loads((root / "releases" / "last_good.json").read_text())["ranker"] == 3
    code, said = duet("rollback")
    assert code == 0, said
    until(lambda: stage.health()["release"]["refused"] is None)  # it served all along: only the report comes late
    assert stage.health()["release"]["release"] == THIRD


def test_a_promotion_without_postgres_is_refused_and_nothing_is_half_done(stage: Stage, duet: Duet) -> None:
    promote(duet, THIRD)
    until_served(stage, THIRD)
    stage.postgres.set(Mode.DOWN)
    for words in (("promote", "--embedding", "2", "--index", "2", "--ranker", "2"), ("rollback",)):
        code, said = duet(*words)
        assert code == 1, said
        assert "PostgreSQL" in said
        assert "Traceback" not in said
    stage.heal()
    with (
        MlflowRest(str(stage.endpoints.mlflow_url)) as registry,
        connect(stage.endpoints.database_url, autocommit=True) as connection,
    ):
        assert registry.resolve_stage(PRODUCTION).release_id == THIRD
        log = PostgresPromotionLog(connection)
        assert (log.history()[-1].versions.release_id, log.open_pin()) == (THIRD, None)
    assert stage.health()["release"]["release"] == THIRD


@pytest.mark.long
@pytest.mark.parametrize("rounds", ROUNDS)
def test_many_promotions_and_rollbacks_under_load_cost_no_answer_no_memory_and_no_file(
    stage: Stage, duet: Duet, rounds: int
) -> None:
    promote(duet, SECOND)
    promote(duet, THIRD)
    until_served(stage, THIRD)
    (worker,) = stage.service.workers()
    held: list[tuple[int, int]] = []
    with stage.crowd(askers=2) as crowd:
        crowd.until_whole()
        for number in range(rounds):
            code, said = duet("rollback")
            assert code == 0, said
            promote(duet, THIRD)
            if number % 3 == 2:
                until_served(stage, THIRD)
                held.append((worker.memory_info().rss, worker.num_fds()))
        crowd.watch(0.3)
    stage.judge(crowd.answers)
    stage.judge_level(crowd.answers, 1)
    assert {answer.body["release"] for answer in crowd.answers} == {SECOND, THIRD}
    early, late = held[2], held[-1]
    assert late[0] - early[0] < 48 * 2**20, held
    assert late[1] - early[1] <= 8, held
    assert psutil.pid_exists(worker.pid)
