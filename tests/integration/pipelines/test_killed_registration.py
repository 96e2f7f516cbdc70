"""SIGKILL after every step of building, uploading and registering a part, and of tagging a candidate.

Each part is killed again and again, one step later every time, and then left alone: what a kill leaves behind must
hinder neither Production nor the next attempt.
"""

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from infra.clock import SystemClock
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from pipelines.ingest.world.world_import import import_synthetic
from pipelines.results.artifacts import ASSET_OF
from pipelines.results.store import ResultStore
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.errors import UnknownVersion
from registry.mlflow.rest import MlflowRest
from registry.models.artifacts import verify_artifact
from tests.architecture.sources import ROOT
from tests.conftest import empty_tables, make_settings
from tests.training_process import Training

pytestmark = pytest.mark.timeout(600)

SMALL: dict[str, dict[str, Any]] = {
    "embeddings": {"dimensions": 8, "iterations": 3, "tuning_trials": 1},
    "ranker": {"rounds": 10},
    "features": {"max_snapshots": 3},
    "evaluation": {"bootstrap_rounds": 50},
}
# In the order in which a process passes them.
STEPS_OF_A_PART = (
    "training",
    "writing_file",
    "manifest",
    "saving",
    "adoption",
    "run",
    "metrics",
    "figures",
    "file",
    "upload",
    "version",
    "registration",
)
STEPS_OF_A_CANDIDATE = ("check", *ArtifactKind)
# What makes another artefact than the one in Production.
CHANGED: dict[ArtifactKind, dict[str, Any]] = {
    ArtifactKind.EMBEDDING: {"seed": 11},
    ArtifactKind.INDEX: {"seed": 11},
    ArtifactKind.RANKER: {"seed": 11},
}


@dataclass
class World:
    """A trained world, its release in Production, and the registry that must stay whole."""

    training: Training
    rest: MlflowRest
    production: ReleaseVersions
    folder: Path
    fetched: set[tuple[ArtifactKind, int]] = field(default_factory=set)

    def train(self, kind: ArtifactKind, run_id: str, failpoint: str | None = None, **changed: Any) -> int:
        step = ASSET_OF[kind]
        config = {step: {**SMALL.get(step, {}), **CHANGED[kind], **changed}}
        return self.training.run([step], config, run_id=run_id, failpoint=failpoint)

    def numbers(self, kind: ArtifactKind) -> list[int]:
        return [version.version for version in self.rest.versions(kind)]

    def open_runs(self) -> list[str]:
        """Names of the runs that MLflow shows as running."""
        post = {"timeout": 30, "trust_env": False}
        experiment = httpx.get(
            f"{self.rest.url}/api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": self.training.settings.mlflow.experiment},
            **post,
        ).json()["experiment"]["experiment_id"]
        answer = httpx.post(
            f"{self.rest.url}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": [experiment], "filter": "attributes.status = 'RUNNING'"},
            **post,
        )
        return [run["info"]["run_name"] for run in answer.raise_for_status().json().get("runs", [])]

    def assert_whole(self) -> None:
        """No version lacks a file or exists twice, no pointer leads astray, and Production stands complete."""
        for kind in ArtifactKind:
            versions = self.rest.versions(kind)
            digests = [version.digest for version in versions]
            assert len(set(digests)) == len(digests)
            for version in versions:
                if (kind, version.version) in self.fetched:
                    continue
                target = self.folder / uuid4().hex
                assert self.rest.download(kind, version.version, target).digest == version.digest
                self.fetched.add((kind, version.version))
            current = ResultStore.of(self.training.settings).require(ASSET_OF[kind])
            verify_artifact(current.path, current.digest)
        assert self.rest.resolve_stage(PRODUCTION) == self.production
        assert {kind: len(self.rest.versions_in_stage(kind, PRODUCTION)) for kind in ArtifactKind} == dict.fromkeys(
            ArtifactKind, 1
        )


@pytest.fixture(scope="module")
def world(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Sixty people, one training of everything, its release moved to Production."""
    data_dir = tmp_path_factory.mktemp("killed") / "duet"
    settings = make_settings(
        data_dir,
        features={"project": f"killed_{uuid4().hex}"},
        mlflow={"port": 0, "experiment": f"killed-{uuid4().hex}"},
    )
    clock = SystemClock()
    with connect(mlflow_endpoints.database_url) as connection:
        empty_tables(connection)
        import_synthetic(connection, people=60, seed=5, data_dir=data_dir, clock=clock)
    training = Training(settings, mlflow_endpoints, clock.now())
    assert training.run([], SMALL, run_id=str(uuid4())) == 0
    with MlflowRest(mlflow_endpoints.mlflow_url or "") as rest:
        first = rest.release_candidate("latest")
        for kind in ArtifactKind:
            rest.transition_stage(kind, first[kind], PRODUCTION)
        yield World(training, rest, first, tmp_path_factory.mktemp("downloads"))


def test_every_step_that_the_code_names_is_killed_here() -> None:
    sources = (
        "registry/models/artifacts",
        "registry/mlflow/logged",
        "pipelines/results/artifacts",
        "pipelines/release/candidate",
    )
    code = "\n".join((ROOT / f"{name}.py").read_text() for name in sources)
    named = re.findall(r'failpoint\(f?"(\S+)\.after_(\S+)"\)', code)
    of_a_candidate = {step for what, step in named if what == "candidate"}
    assert {step for what, step in named if what != "candidate"} == set(STEPS_OF_A_PART)
    assert of_a_candidate == {"check", "{kind}"}


# Every kind at every step takes minutes; the index is the soonest built.
FEW = [(ArtifactKind.INDEX, ("adoption", "upload", "version"), 11)]
EVERY = [pytest.param(kind, STEPS_OF_A_PART, 12, marks=pytest.mark.long) for kind in ArtifactKind]


@pytest.mark.parametrize(("kind", "steps", "seed"), [*FEW, *EVERY])
def test_a_part_killed_after_every_step_is_registered_once_and_whole(
    world: World, kind: ArtifactKind, steps: Sequence[str], seed: int
) -> None:
    before, latest, run_id = world.numbers(kind), world.rest.release_candidate("latest"), str(uuid4())
    for step in steps:
        assert world.train(kind, run_id, f"{kind}.after_{step}", seed=seed) == -signal.SIGKILL, step
        world.assert_whole()
        assert len(world.numbers(kind)) == len(before) + (step in {"version", "registration"}), step
        assert world.rest.release_candidate("latest") == latest
    assert world.train(kind, run_id, seed=seed) == 0
    world.assert_whole()
    new = [number for number in world.numbers(kind) if number not in before]
    assert len(new) == 1
    current = ResultStore.of(world.training.settings).require(ASSET_OF[kind])
    assert (current.version, current.digest) == (new[0], world.rest.version(kind, new[0]).digest)
    assert world.open_runs() == []


@pytest.mark.long
def test_a_candidate_killed_after_every_tag_is_none_until_it_has_all_three(world: World) -> None:
    run_id = str(uuid4())
    assert world.train(ArtifactKind.RANKER, run_id, max_depth=2) == 0
    latest, numbers = world.rest.release_candidate("latest"), {kind: world.numbers(kind) for kind in ArtifactKind}
    for step in STEPS_OF_A_CANDIDATE:
        killed = world.training.run(["release_candidate"], {}, run_id=run_id, failpoint=f"candidate.after_{step}")
        assert killed == -signal.SIGKILL, step
        world.assert_whole()
        if step is not STEPS_OF_A_CANDIDATE[-1]:
            assert world.rest.release_candidate("latest") == latest, step
    assert world.training.run(["release_candidate"], {}, run_id=run_id) == 0
    candidate = world.rest.release_candidate("latest")
    assert candidate.ranker == numbers[ArtifactKind.RANKER][0]
    assert world.rest.release_candidate(candidate.release_id) == candidate
    assert {kind: world.numbers(kind) for kind in ArtifactKind} == numbers
    world.assert_whole()


def test_half_a_candidate_cannot_be_asked_for(world: World) -> None:
    run_id = str(uuid4())
    assert world.train(ArtifactKind.RANKER, run_id, max_depth=4) == 0
    number = world.numbers(ArtifactKind.RANKER)[0]
    killed = world.training.run(["release_candidate"], {}, run_id=run_id, failpoint="candidate.after_embedding")
    assert killed == -signal.SIGKILL
    tags = [version.tags.get("release_candidate", "") for version in world.rest.versions(ArtifactKind.EMBEDDING)]
    half = next(name for tag in tags for name in tag.split(",") if name.endswith(f"-r{number}"))
    with pytest.raises(UnknownVersion, match="not a complete release candidate"):
        world.rest.release_candidate(half)
