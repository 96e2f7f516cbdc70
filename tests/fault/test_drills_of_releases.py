"""Drills of the runbook about releases, over a real MLflow: refused, old, failing, and rolled back while it is away.

The service has few connections to Postgres here, for the drill that wants more of them than there are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import xgboost

from infra.cli.app import run
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.mlflow.logged import MlflowStore
from registry.mlflow.rest import MlflowRest
from registry.models.artifacts import read_manifest
from registry.models.ranker import Ranker
from tests.conftest import forget_models
from tests.crafted import reseal
from tests.fault.drilling import drill
from tests.fault.proxy import Fault, Mode
from tests.fault.stage import Stage, staged
from tests.fault.village import PEOPLE, village_ranker
from tests.prometheus import Prometheus, watching
from tests.releases import judge
from tests.serving_world import write_artifacts
from tests.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

GOOD, NEEDY, OLD = "e2-i2-r2", "e3-i3-r3", "e4-i4-r4"  # the first is the copy that the service begins with
LEARNT_FROM = "distance_to_requester_limit"
TOLD = {
    "MLFLOW__REQUEST_TIMEOUT_S": "10",
    "SERVING__RELEASE_POLL_S": "1",
    "SERVING__EXPERIMENT_POLL_S": "0.5",
    "SERVING__DEADLINE_MS": "3000",
    "POSTGRES__POOL_SIZE": "4",
    "POSTGRES__MAX_OVERFLOW": "0",
}
Duet = Callable[..., None]


def needy_ranker() -> Ranker:
    """Learn from a feature that those who set no limit to the distance do not have: for them it raises."""
    rng = np.random.default_rng(3)
    features = rng.uniform(0, 1, size=(400, 1)).astype(np.float32)
    labels = (features[:, 0] < rng.uniform(size=400)).astype(np.float32)
    matrix = xgboost.DMatrix(features, labels, feature_names=[LEARNT_FROM])
    booster = xgboost.train({"objective": "binary:logistic", "seed": 1, "nthread": 1}, matrix, 20)
    return Ranker.from_booster(booster, [LEARNT_FROM], canary_features=features)


@pytest.fixture(scope="module")
def stage(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The village, over a registry with a good release, one whose ranker fails for some people, and an old one."""
    forget_models(mlflow_endpoints)
    root = tmp_path_factory.mktemp("releases")
    store = MlflowStore(str(mlflow_endpoints.mlflow_url), "drills")
    now = datetime.now(UTC)
    for name, model, as_of in (
        ("town", village_ranker(), now),
        (GOOD, village_ranker(), now),
        (NEEDY, needy_ranker(), now),
        (OLD, village_ranker(), now - timedelta(days=8)),
    ):
        paths = write_artifacts(root / name, PEOPLE, model=model, dataset=name)
        index = paths[ArtifactKind.INDEX]
        reseal(index, lineage={**read_manifest(index).lineage, "as_of": as_of.isoformat()})
        for kind, path in paths.items():
            store.log_version(kind, path)
    with MlflowRest(str(mlflow_endpoints.mlflow_url)) as registry:
        judge(registry, *map(ReleaseVersions.parse, (GOOD, NEEDY, OLD)))
    with staged(mlflow_endpoints, root, **TOLD) as stage:
        yield stage


@pytest.fixture(scope="module")
def prometheus(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watching(stage.service.port, tmp_path_factory.mktemp("prometheus")) as prometheus:
        yield prometheus


@pytest.fixture
def duet(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Duet:
    """Run a `duet` command on the machine of the service, through the proxies, as the service does."""

    def command(*words: str) -> None:
        with monkeypatch.context() as patch:
            for name, value in stage.through.environment().items():
                patch.setenv(name, value)
            code = run(["--data-dir", str(stage.service.log.parent / "duet"), *words])
        said = capsys.readouterr()
        assert code == 0, said.out + said.err

    return command


def promote(duet: Duet, release: str, *more: str) -> None:
    versions = ReleaseVersions.parse(release)
    parts = ("--embedding", versions.embedding, "--index", versions.index, "--ranker", versions.ranker)
    duet("promote", "--no-wait", *map(str, parts), *more)


def until_served(stage: Stage, release: str) -> None:
    until(lambda: stage.health()["release"]["release"] == release, instead=lambda: stage.health()["release"])


@pytest.fixture(autouse=True)
def _good_release(stage: Stage, duet: Duet) -> None:
    promote(duet, GOOD)
    until_served(stage, GOOD)


@contextmanager
def without_limits(stage: Stage) -> Iterator[None]:
    """Let nobody say how far away others may be, as after a change of the app."""
    with connect(stage.endpoints.database_url, autocommit=True) as connection:
        connection.execute("update duet.users set max_distance_km = null")
        try:
            with stage.crowd(writes=()):
                yield
        finally:
            connection.execute("update duet.users set max_distance_km = 50")


def test_versions_that_do_not_belong_together(stage: Stage, prometheus: Prometheus, duet: Duet) -> None:
    @contextmanager
    def mixed() -> Iterator[None]:
        with MlflowRest(str(stage.endpoints.mlflow_url)) as registry:  # as somebody does on its pages
            registry.transition_stage(ArtifactKind.INDEX, 4, PRODUCTION)
        yield
        promote(duet, GOOD)

    drill(prometheus, {"DuetReleaseRefused"}, mixed())
    until_served(stage, GOOD)


def test_an_index_that_is_eight_days_old(stage: Stage, prometheus: Prometheus, duet: Duet) -> None:
    @contextmanager
    def old() -> Iterator[None]:
        promote(duet, OLD)
        yield
        promote(duet, GOOD)

    drill(prometheus, {"DuetIndexStale"}, old())
    until_served(stage, GOOD)


def test_a_challenger_that_fails_in_the_shadow(stage: Stage, prometheus: Prometheus, duet: Duet) -> None:
    promote(duet, NEEDY, "--staging")

    @contextmanager
    def shadowed() -> Iterator[None]:
        duet("experiment", "start", "drill", "--shadow")
        until(lambda: stage.health()["experiment"]["challenger"] == NEEDY, instead=stage.health)
        with without_limits(stage):
            yield
            duet("experiment", "stop", "drill")

    drill(prometheus, {"DuetShadowFails"}, shadowed())


def test_a_ranker_that_fails(stage: Stage, prometheus: Prometheus, duet: Duet) -> None:
    @contextmanager
    def failing() -> Iterator[None]:
        promote(duet, NEEDY)
        until_served(stage, NEEDY)
        with without_limits(stage):
            yield
            duet("rollback", "--reason", "its ranker fails")
            until_served(stage, GOOD)

    drill(prometheus, {"DuetModelFails", "DuetBreakerOpen", "DuetDegradedAnswers"}, failing())


def test_a_rollback_while_mlflow_is_away(stage: Stage, prometheus: Prometheus, duet: Duet) -> None:
    promote(duet, OLD)
    until_served(stage, OLD)

    @contextmanager
    def away() -> Iterator[None]:
        stage.mlflow.set(Mode.DOWN)
        try:
            duet("rollback", "--reason", "a drill")
            until_served(stage, GOOD)
            yield
        finally:
            stage.heal()

    drill(prometheus, {"DuetReleasePinned"}, away())


def test_more_callers_than_connections_to_a_slow_postgres(stage: Stage, prometheus: Prometheus) -> None:
    @contextmanager
    def crowded() -> Iterator[None]:
        stage.set("postgres", Fault(Mode.DELAY, 0.02))
        try:
            with stage.crowd(writes=(), askers=16, pause_s=0.0):
                yield
        finally:
            stage.heal()

    drill(prometheus, {"DuetPoolWaiting"}, crowded())
