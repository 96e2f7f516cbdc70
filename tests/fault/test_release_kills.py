"""SIGKILL at every step of promotion, rollback and swap: one complete release serves, and doing it again completes.

What is killed is the real command and a real watcher, over a real MLflow and Postgres.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from registry.contracts import MODEL_NAMES, PRODUCTION, STAGE_ALIASES, ArtifactKind, ReleaseVersions
from registry.errors import IncoherentRelease
from registry.mlflow.logged import MlflowStore
from registry.mlflow.observer import observe
from registry.mlflow.rest import MlflowRest
from registry.promotion.audit import _ORDERS_LOCK, PostgresPromotionLog
from registry.promotion.promotion import promote, rollback
from tests.conftest import empty_tables
from tests.fault.proxy import Mode
from tests.fault.stage import proxied, via
from tests.follower import look
from tests.releases import judge
from tests.serving_world import write_artifacts
from tests.waiting import until

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
FIRST, SECOND = ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2)


def steps(ordinary: Sequence[str], *others: str) -> list[Any]:
    """Return the steps at which to kill: every run takes those at which the outcome turns, and a long run them all."""
    return [*ordinary, *(pytest.param(step, marks=pytest.mark.long) for step in others)]


PROMOTION = steps(("record", "embedding", "index"), "verify", "ranker", "aliases")
ROLLBACK = steps(
    ("rollback.before_commit", "rollback.after_pin", "pin.after_ranker"),
    "rollback.after_verify",
    "pin.after_embedding",
    "pin.after_index",
)
SWAP = steps(("load", "good", "remember"), "fetch", "prove", "trial", "fill")


@dataclass
class World:
    """Two releases in MLflow, the first in Production and served here; `data_dir` holds the copies of this machine."""

    endpoints: Endpoints
    data_dir: Path

    @property
    def mlflow_url(self) -> str:
        return str(self.endpoints.mlflow_url)

    def die(self, failpoint: str, *words: str) -> None:
        """Run a Python module that is killed at a failpoint."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env={**os.environ, **self.endpoints.environment(), "DUET_FAILPOINT": failpoint},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    def served(self, *, mlflow: bool = True) -> str | None:
        """Return what a serving process that starts now serves; the process that is killed tries it as serving does."""
        mlflow_url = self.mlflow_url if mlflow else None
        return look(self.data_dir, mlflow_url, self.endpoints.database_url, prove=False)[0]

    def in_production(self) -> ReleaseVersions | None:
        with MlflowRest(self.mlflow_url) as registry:
            try:
                return registry.resolve_stage(PRODUCTION)
            except IncoherentRelease:
                return None

    def champions(self) -> dict[ArtifactKind, int]:
        with MlflowRest(self.mlflow_url) as registry:
            return {kind: registry.aliases(kind)[STAGE_ALIASES[PRODUCTION]] for kind in ArtifactKind}

    def audited(self) -> list[str]:
        with connect(self.endpoints.database_url) as connection:
            return [entry.versions.release_id for entry in PostgresPromotionLog(connection).history()]

    def pinned(self) -> bool:
        with connect(self.endpoints.database_url) as connection:
            return PostgresPromotionLog(connection).open_pin() is not None

    def promote(self, versions: ReleaseVersions) -> None:
        with MlflowRest(self.mlflow_url) as registry, connect(self.endpoints.database_url) as connection:
            promote(registry, PostgresPromotionLog(connection), versions, actor="ada", way="cli", feature_schema=None)


@pytest.fixture(scope="module")
def registered(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Endpoints:
    url = str(mlflow_endpoints.mlflow_url)
    for name in MODEL_NAMES.values():
        httpx.request("DELETE", f"{url}/api/2.0/mlflow/registered-models/delete", json={"name": name}, timeout=30)
    store = MlflowStore(url, "kills")
    root = tmp_path_factory.mktemp("kills")
    for dataset in ("first", "second"):
        for kind, path in write_artifacts(root / dataset, range(1, 31), dataset=dataset).items():
            store.log_version(kind, path)
    with MlflowRest(url) as registry:
        judge(registry, FIRST, SECOND)
    return mlflow_endpoints


@pytest.fixture
def world(registered: Endpoints, tmp_path: Path) -> World:
    with connect(registered.database_url) as connection:
        empty_tables(connection)
    world = World(registered, tmp_path / "duet")
    world.promote(FIRST)
    assert world.served() == FIRST.release_id
    return world


@pytest.mark.parametrize("step", PROMOTION)
def test_a_promotion_killed_at_any_step_leaves_one_release_serving_and_completes_when_run_again(
    world: World, step: str
) -> None:
    command = ("infra.cli", "--data-dir", str(world.data_dir), "promote", "--embedding", "2")
    world.die(f"promotion.after_{step}", *command, "--index", "2", "--ranker", "2")
    moved = step in {"index", "aliases"}
    assert world.in_production() == (SECOND if moved else FIRST if step in {"verify", "record"} else None)
    assert world.served() == (SECOND if moved else FIRST).release_id
    assert world.audited() == [FIRST.release_id, *([SECOND.release_id] if moved else [])], "a move that stands is told"
    world.promote(SECOND)
    assert world.in_production() == SECOND
    assert world.champions() == dict.fromkeys(ArtifactKind, 2)
    assert world.audited() == [FIRST.release_id, SECOND.release_id]
    assert world.served() == SECOND.release_id


@pytest.mark.parametrize("failpoint", ROLLBACK)
def test_a_rollback_killed_at_any_step_has_happened_or_not_and_completes_by_itself(
    world: World, failpoint: str
) -> None:
    world.promote(SECOND)
    assert world.served() == SECOND.release_id
    world.die(failpoint, "infra.cli", "--data-dir", str(world.data_dir), "rollback")
    happened = failpoint not in {"rollback.after_verify", "rollback.before_commit"}
    expected = FIRST if happened else SECOND
    assert world.pinned() is happened
    assert world.served(mlflow=False) == expected.release_id, "the pin alone decides"
    assert world.served() == expected.release_id
    with MlflowRest(world.mlflow_url) as registry, connect(world.endpoints.database_url) as connection:
        log = PostgresPromotionLog(connection)
        observe(registry, log)
        assert registry.resolve_stage(PRODUCTION) == expected
        assert log.open_pin() is None
        if not happened:
            rollback(registry, log, actor="ada", way="cli", feature_schema=None)
            assert registry.resolve_stage(PRODUCTION) == FIRST
    assert world.champions() == dict.fromkeys(ArtifactKind, 1)
    assert world.audited() == [FIRST.release_id, SECOND.release_id, FIRST.release_id]


@pytest.mark.parametrize("step", SWAP)
def test_a_worker_killed_at_any_step_of_a_swap_starts_with_one_complete_release(world: World, step: str) -> None:
    world.promote(SECOND)
    world.die(
        f"swap.after_{step}", "tests.follower", str(world.data_dir), world.mlflow_url, world.endpoints.database_url
    )
    remembered = step == "remember"
    assert world.served(mlflow=False) == (SECOND if remembered else FIRST).release_id
    assert world.served() == SECOND.release_id
    assert world.served(mlflow=False) == SECOND.release_id


@pytest.mark.long
def test_of_two_processes_that_promote_at_once_one_wins_and_the_other_gets_a_clear_conflict(world: World) -> None:
    def command(version: int, mlflow_url: str) -> "subprocess.Popen[str]":
        number = str(version)
        parts = ("--embedding", number, "--index", number, "--ranker", number)
        return subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "--data-dir", str(world.data_dir), "promote", *parts],
            cwd=ROOT,
            env={
                **os.environ,
                **world.endpoints.environment(),
                "DUET_MLFLOW__URL": mlflow_url,
                "DUET_MLFLOW__REQUEST_TIMEOUT_S": "300",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with proxied(world.mlflow_url) as proxy, connect(world.endpoints.database_url, autocommit=True) as connection:
        proxy.set(Mode.DELAY, 0.25)  # so that the first still holds the lock when it is seen to
        slow = command(2, via(world.mlflow_url, proxy))

        def is_held() -> bool:
            assert slow.poll() is None, slow.communicate()
            held = (
                "select 1 from pg_locks where locktype = 'advisory' and objid = %s and classid = %s and database = %s"
            )
            own = connection.execute("select oid from pg_database where datname = current_database()").fetchone()
            assert own is not None
            low, high = _ORDERS_LOCK & 0xFFFFFFFF, _ORDERS_LOCK >> 32
            return connection.execute(held, (low, high, own[0])).fetchone() is not None

        until(is_held, 120)
        proxy.set(Mode.BLACK_HOLE)
        fast = command(1, world.mlflow_url)
        said, _ = fast.communicate(timeout=120)
        proxy.heal()
        told, _ = slow.communicate(timeout=120)
    assert slow.returncode == 0, told
    assert fast.returncode == 1, said
    assert "Another promotion or rollback is under way" in said
    assert "Traceback" not in said
    assert world.in_production() == SECOND
    assert world.audited() == [FIRST.release_id, SECOND.release_id]
