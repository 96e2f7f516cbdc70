"""What a user of each framework does on the first day, with that framework's own commands and calls.

`first_day.toml` has every row of it: what another file proves already, with servers that it has anyway, is not done
again here.
"""

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import httpx
import pandas as pd
import psycopg
import pytest
import redis
from feast import FeatureStore
from feast.types import Float32

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ACTIVITY, CONTEXT_COLUMNS, PROFILE
from infra.clock import SystemClock
from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from pipelines.definitions import defs
from pipelines.ingest.world.world_import import import_synthetic
from tests.architecture.sources import ROOT
from tests.feature_rows import put_features
from tests.waiting import until

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
FIRST_DAY = Path(__file__).with_name("first_day.toml")
LOADED = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def run(endpoints: Endpoints, program: str, *arguments: str, **environment: str) -> str:
    """Run a framework's own command on the servers of the test and return what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        cwd=ROOT,
        env={**os.environ, **endpoints.environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def feast(endpoints: Endpoints, *arguments: str) -> str:
    return run(endpoints, "feast", "-c", "feature_repo", *arguments)


def test_every_row_of_the_first_day_is_proven_by_a_test_that_is_there() -> None:
    rows = tomllib.loads(FIRST_DAY.read_text())
    assert set(rows) == {"feast", "mlflow", "bentoml", "dagster"}
    for framework, proofs in rows.items():
        for done, proof in proofs.items():
            file, _, name = proof.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), f"{framework}: {done}"


def test_feast_applies_lists_and_materialises_the_catalogue(
    endpoints: Endpoints,
    connection: psycopg.Connection[Any],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for user_id, likes, latitude in ((42, 5, 50.0), (7, 3, 51.0)):
        put_features(connection, ACTIVITY, user_id, NOW - DAY, likes_sent_7d=likes)
        put_features(connection, ACTIVITY, user_id, NOW - 9 * DAY, likes_sent_7d=1)
        put_features(connection, PROFILE, user_id, NOW - 9 * DAY, latitude=latitude, longitude=8)
    connection.commit()
    feast(endpoints, "apply")
    listed = feast(endpoints, "feature-views", "list")
    assert {"user_profile", "user_attributes", "user_activity", "user_reciprocity"} <= set(listed.split())
    feast(endpoints, "materialize-incremental", NOW.strftime("%Y-%m-%dT%H:%M:%S"))
    assert redis_client.dbsize() == 2

    for name, value in endpoints.environment().items():
        # A pool of psycopg 3 complains in a later test when it is collected.
        monkeypatch.setenv(name, value.replace("postgresql://", "postgresql+psycopg2://"))
    store = FeatureStore(repo_path=str(ROOT / "feature_repo"))
    view = store.get_feature_view("user_activity")
    assert (view.features[0].name, view.features[0].dtype) == ("likes_sent_7d", Float32)
    assert view.features[0].description == "Likes sent in the last 7 days."
    one = ["user_activity:likes_sent_7d"]
    asked = pd.DataFrame({"user_id": [42, 42, 99], "event_timestamp": [NOW, NOW - 5 * DAY, NOW]})
    joined = store.get_historical_features(asked, features=one).to_df()
    assert joined["likes_sent_7d"].fillna(-1).tolist() == [5, 1, -1]
    online = store.get_online_features(features=one, entity_rows=[{"user_id": 42}, {"user_id": 99}]).to_dict()
    assert online["likes_sent_7d"] == [5, None]

    pair = {"requester_id": 42, "candidate_id": 7, "requested_at": NOW.timestamp()}
    pair |= dict.fromkeys(CONTEXT_COLUMNS, 0.5)
    service = store.get_feature_service("ranking_v1")
    with pytest.raises(MalformedFeatures, match="online for the features of each person"):
        store.get_online_features(features=service, entity_rows=[pair], full_feature_names=True)
    trained = store.get_historical_features(
        pd.DataFrame([pair | {"event_timestamp": NOW}]), features=service, full_feature_names=True
    ).to_df()
    for name, expected in (("distance_km", 111.195), ("requester_likes_sent_7d", 5), ("candidate_likes_sent_7d", 3)):
        assert trained[f"ranking_features__{name}"][0] == pytest.approx(expected, abs=0.01)


def test_dagster_checks_the_definitions(endpoints: Endpoints, tmp_path: Path) -> None:
    place = {"DUET_DATA_DIR": str(tmp_path / "duet"), "DAGSTER_HOME": str(ROOT)}
    assert "Validation successful" in run(endpoints, "dagster", "definitions", "validate", **place)


@pytest.mark.long
def test_dagster_runs_a_job_in_several_processes_and_hands_out_its_results(
    endpoints: Endpoints, connection: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_synthetic(connection, people=40, seed=3, data_dir=tmp_path, clock=SystemClock())
    connection.commit()
    place = {
        "DUET_DATA_DIR": str(tmp_path / "duet"),
        "DUET_FEATURES__PROJECT": f"users_{uuid4().hex}",
        "DAGSTER_HOME": str(ROOT),
    }
    asked = tmp_path / "run.yaml"
    asked.write_text(
        "execution: {config: {multiprocess: {max_concurrent: 2}}}\n"
        "ops: {features: {config: {max_snapshots: 2, history: false}}}\n"
    )
    job = ("-m", "pipelines.definitions", "-j", "materialize_features", "-c", str(asked))
    told = run(endpoints, "dagster", "job", "execute", *job, **place)
    apart = set(re.findall(r'Launching subprocess for "(\w+)"', told))
    assert apart == {"snapshots", "features", "online_features"}, "each step worked in a process of its own"

    for name, value in {**endpoints.environment(), **place}.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.ephemeral() as instance:
        interactions = defs.load_asset_value("interactions", instance=instance)
        features = defs.load_asset_value("features", instance=instance)
    assert len(pd.read_parquet(interactions.path / "interactions.parquet")) == interactions.facts["rows"]
    assert features.inputs == {"people": interactions.inputs["people"], "interactions": interactions.digest}


@contextmanager
def started(log: Path, program: str, *arguments: str, environment: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Run a framework's own server until the block ends, then stop it as Ctrl-C does; yield what it said so far."""
    with log.open("wb") as said:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name(program)), *arguments],
            cwd=ROOT,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield log.read_text
        assert server.poll() is None, log.read_text()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(120)


def answered(url: str, **asked: Any) -> Any:
    """Return what a page answers as JSON, None while it does not."""
    try:
        return httpx.request("POST" if asked else "GET", url, timeout=30, **asked).json()
    except (httpx.HTTPError, ValueError):
        return None


@pytest.mark.long
def test_dagster_dev_comes_up_with_the_code_location_loaded(mlflow_endpoints: Endpoints, tmp_path: Path) -> None:
    port = free_port()
    place = {"DUET_DATA_DIR": str(tmp_path / "duet"), "DAGSTER_HOME": str(ROOT)}
    environment = {**os.environ, **mlflow_endpoints.environment(), **place}
    arguments = ("dev", "--host", "127.0.0.1", "--port", str(port))
    with started(tmp_path / "log", "dagster", *arguments, environment=environment) as said:
        url = f"http://127.0.0.1:{port}/graphql"

        def entries() -> list[Any]:
            told = answered(url, json={"query": LOADED})
            return [] if told is None else list(told["data"]["workspaceOrError"]["locationEntries"])

        until(lambda: any(entry["locationOrLoadError"] for entry in entries()), 300, said)
        assert entries() == [{"name": "duet", "locationOrLoadError": {"__typename": "RepositoryLocation"}}]
    assert "Traceback" not in said()


@pytest.mark.long
def test_feast_ui_shows_the_catalogue(endpoints: Endpoints, tmp_path: Path) -> None:
    feast(endpoints, "apply")
    port = free_port()
    arguments = ("-c", "feature_repo", "ui", "--host", "127.0.0.1", "--port", str(port))
    environment = {**os.environ, **endpoints.environment()}
    with started(tmp_path / "log", "feast", *arguments, environment=environment) as said:
        url = f"http://127.0.0.1:{port}/api/v1/feature_views?project=duet"
        until(lambda: answered(url) is not None, 300, said)
        assert "user_activity" in str(answered(url))
