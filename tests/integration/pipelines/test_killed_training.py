"""A training run killed in the middle leaves nothing half-registered, is closed at the next start, and runs again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.clock import SystemClock
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from pipelines.definitions import build_definitions
from pipelines.ingest.world.world_import import import_synthetic
from pipelines.resources import Platform
from pipelines.runs.orphans import close_orphans, worker_is_alive
from pipelines.runs.running import Listener, open_instance, run_job
from registry.contracts import ArtifactKind
from registry.mlflow.rest import MlflowRest
from tests.clocks import FixedClock
from tests.conftest import empty_tables, make_settings
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("default"),
]

SMALL = [
    "embeddings.dimensions=8",
    "embeddings.iterations=5",
    "embeddings.tuning_trials=1",
    "ranker.rounds=10",
    "features.max_snapshots=3",
]


def test_a_killed_run_registers_nothing_by_half_and_can_be_repeated(empty_mlflow: Endpoints, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "duet")
    with connect(empty_mlflow.database_url) as connection:
        empty_tables(connection)
        import_synthetic(connection, people=60, seed=5, data_dir=tmp_path, clock=SystemClock())
    words = [word for setting in SMALL for word in ("--set", setting)]
    environment = os.environ | empty_mlflow.environment() | {"DUET_ENVIRONMENT": "test"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "--data-dir", str(settings.data_dir), "train", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    logs = settings.data_dir / "logs" / "runs"

    # Killed the moment the embeddings start: features are written, nothing is registered yet.
    def embeddings_start() -> bool:
        assert worker.poll() is None
        return "STEP_START embeddings" in "".join(path.read_text() for path in logs.glob("*.log"))

    until(embeddings_start, 300)
    worker.send_signal(signal.SIGKILL)
    worker.wait()

    with MlflowRest(empty_mlflow.mlflow_url or "") as rest:
        held = {kind: rest.versions(kind) for kind in ArtifactKind}
        for kind, versions in held.items():
            for version in versions:  # whatever got registered before the signal is whole
                assert (
                    rest.download(kind, version.version, tmp_path / f"{kind}-{version.version}").digest
                    == version.digest
                )
    assert not held[ArtifactKind.RANKER]

    platform = Platform(settings, empty_mlflow, FixedClock(SystemClock().now()))
    try:
        with open_instance(platform) as instance:
            left = [run.run_id for run in instance.get_runs() if not run.is_finished]
            assert len(left) == 1
            assert close_orphans(instance, worker_is_alive) == left
            assert close_orphans(instance, worker_is_alive) == []
        chosen = {"embeddings": {"dimensions": 8, "iterations": 5, "tuning_trials": 1}, "ranker": {"rounds": 10}}
        run_job(platform, "train_all", chosen | {"features": {"max_snapshots": 3}}, os.getpid(), Listener())
    finally:
        platform.close()
    with MlflowRest(empty_mlflow.mlflow_url or "") as rest:
        assert rest.release_candidate("latest").ranker == 1


def test_a_run_whose_worker_lives_is_left_alone(mlflow_endpoints: Endpoints, tmp_path: Path) -> None:
    import dagster as dg

    platform = Platform(make_settings(tmp_path), mlflow_endpoints)
    with open_instance(platform) as instance:
        close_orphans(instance, lambda _pid: False)
        run = instance.create_run_for_job(
            build_definitions(platform).resolve_job_def("evaluate"),
            tags={"duet/worker_pid": str(os.getpid())},
            status=dg.DagsterRunStatus.STARTED,
        )
        # One that the daemon has just launched has not said yet which process works on it.
        launched = instance.create_run_for_job(
            build_definitions(platform).resolve_job_def("evaluate"), status=dg.DagsterRunStatus.STARTING
        )
        assert close_orphans(instance, lambda pid: pid == os.getpid()) == []
        assert close_orphans(instance, lambda _pid: False) == [run.run_id]
        instance.delete_run(launched.run_id)
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert ended.status is dg.DagsterRunStatus.FAILURE
