"""A small world to train on, and trainings of it that take seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from pipelines.definitions import build_definitions
from pipelines.ingest.world.world_import import import_synthetic
from pipelines.resources import Platform
from pipelines.runs.running import Listener, RunStory, run_job
from registry.contracts import ArtifactKind
from registry.mlflow.rest import MlflowRest
from tests.clocks import FixedClock
from tests.conftest import empty_tables, forget_models, make_settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PEOPLE = 150
SMALL = {
    "embeddings": {"dimensions": 8, "iterations": 5, "tuning_trials": 2},
    "ranker": {"rounds": 30, "early_stopping_rounds": 5, "choice_rounds": 20, "judged_people": 40},
    "features": {"max_snapshots": 8},
    "evaluation": {"bootstrap_rounds": 50, "cold_start_people": 20},
}


@contextmanager
def small_world(mlflow_endpoints: Endpoints, data_dir: Path, **settings: Any) -> Iterator[Platform]:
    """Give a platform on a fresh data directory with 150 people, and a clock five months after their end."""
    forget_models(mlflow_endpoints)  # what other tests promoted is no Production of this world
    # A Feast project of its own: until when another test has materialised features does not count here.
    chosen = make_settings(data_dir, features={"project": f"training_{uuid4().hex}"}, **settings)
    with connect(mlflow_endpoints.database_url) as connection:
        empty_tables(connection)
        end = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
        import_synthetic(connection, people=PEOPLE, seed=3, data_dir=data_dir, clock=end)
    made = Platform(chosen, mlflow_endpoints, FixedClock(NOW))
    try:
        yield made
    finally:
        made.close()


def train(platform: Platform, job: str = "train_all", **settings: dict[str, Any]) -> RunStory:
    """Run a job with small settings, changed by step."""
    chosen = {step: values for step, values in {**SMALL, **settings}.items() if step in steps_of(job)}
    return run_job(platform, job, chosen, 1, Listener())


def steps_of(job: str) -> set[str]:
    """Return the names of a job's steps."""
    return {node.name for node in build_definitions().resolve_job_def(job).nodes_in_topological_order}


def digests(platform: Platform) -> dict[str, str]:
    """Return the digest of each result of a training."""
    names = ("people", "interactions", "embeddings", "candidate_index", "ranking_dataset", "ranker", "evaluation")
    return {name: platform.results.require(name).digest for name in names}


def versions(platform: Platform) -> dict[str, list[int]]:
    """Return the registered versions of each kind, the newest first."""
    with MlflowRest(platform.endpoints.mlflow_url or "") as rest:
        return {kind.value: [version.version for version in rest.versions(kind)] for kind in ArtifactKind}
