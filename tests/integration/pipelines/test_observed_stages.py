"""The observer on Dagster's clock: moves by hand reach the audit once, a refusal is a failed check and one alert."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from feature_repo.schema import offered_schema
from infra.endpoints import Endpoints
from pipelines.release.assets import HISTORY
from pipelines.release.checks import production_is_coherent
from pipelines.release.sensors import observe_stages
from pipelines.resources import Platform
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.promotion.audit import PostgresPromotionLog
from tests.conftest import make_settings
from tests.fakes import MemoryRegistry
from tests.releases import judge, register_release
from tests.serving_world import write_artifacts

FIRST, SECOND = ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2)
heard: list[bytes] = []


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        heard.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[str]:
    heard.clear()
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[ArtifactKind, Path]]:
    root = tmp_path_factory.mktemp("releases")
    people = range(1, 21)
    return [write_artifacts(root / name, people, dataset=name, schema=offered_schema()) for name in ("one", "two")]


@pytest.fixture
def platform(
    tmp_path: Path,
    endpoints: Endpoints,
    connection: psycopg.Connection[Any],
    written: list[dict[ArtifactKind, Path]],
    webhook: str,
) -> Platform:
    registry = MemoryRegistry()
    for paths in written:
        judge(registry, register_release(registry, paths))
    settings = make_settings(tmp_path / "duet", alerts={"webhook_url": SecretStr(webhook)})
    platform = Platform(settings, Endpoints(endpoints.database_url, endpoints.redis_url, "http://127.0.0.1:9"))
    platform.__dict__["registry"] = registry  # in place of the server's
    return platform


def move(platform: Platform, versions: ReleaseVersions, stage: str, *kinds: ArtifactKind) -> None:
    for kind in kinds or tuple(ArtifactKind):
        platform.registry.transition_stage(kind, versions[kind], stage)


def tick(platform: Platform, cursor: str | None) -> tuple[dg.SensorResult, str | None]:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"platform": platform})
        result: Any = observe_stages(context)
    return result, result.cursor or cursor


def test_moves_by_hand_are_recorded_once_and_shown_as_a_table(
    platform: Platform, connection: psycopg.Connection[Any]
) -> None:
    move(platform, FIRST, PRODUCTION)
    move(platform, SECOND, STAGING)
    result, cursor = tick(platform, None)
    materialized, check = result.asset_events
    assert materialized.asset_key == HISTORY
    rows = [record.data for record in materialized.metadata["history"].records]
    assert {(row["release"], row["stage"], row["until"]) for row in rows} == {
        ("e1-i1-r1", PRODUCTION, ""),
        ("e2-i2-r2", STAGING, ""),
    }
    assert all(row["how"].endswith(" by mlflow (ui): stage moved in MLflow") for row in rows)
    assert {row["since"] for row in rows} == {"2026-06-01 00:00:03", "2026-06-01 00:00:06"}
    assert check.passed
    again, _ = tick(platform, cursor)
    assert not again.asset_events
    restarted, _ = tick(platform, None)
    assert restarted.asset_events
    log = PostgresPromotionLog(connection)
    assert [(entry.versions, entry.way, entry.actor) for entry in log.history()] == [(FIRST, "ui", "mlflow")]
    assert heard == []


def test_what_is_no_release_fails_the_check_and_alerts_once(
    platform: Platform, connection: psycopg.Connection[Any]
) -> None:
    move(platform, FIRST, PRODUCTION)
    _, cursor = tick(platform, None)
    move(platform, SECOND, PRODUCTION, ArtifactKind.INDEX)
    result, cursor = tick(platform, cursor)
    check = result.asset_events[1]
    assert not check.passed
    assert "was built from embedding" in str(check.description)
    _, cursor = tick(platform, cursor)
    assert len(heard) == 1
    assert b"release_refused" in heard[0]
    move(platform, SECOND, PRODUCTION)
    result, _ = tick(platform, cursor)
    assert result.asset_events[1].passed
    history = PostgresPromotionLog(connection).history()
    assert [entry.versions for entry in history] == [FIRST, SECOND]


def test_a_release_that_the_workers_refuse_is_not_recorded_and_fails_the_check(
    platform: Platform, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "insert into duet.serving_workers (worker_id, host, pid, release, refused)"
        " values (gen_random_uuid(), 'there', 7, 'e1-i1-r1', 'Release e2-i2-r2 ended by SIGSEGV.')"
    )
    connection.commit()
    move(platform, SECOND, PRODUCTION)
    result, _ = tick(platform, None)
    assert "SIGSEGV" in str(result.asset_events[1].description)
    assert PostgresPromotionLog(connection).history() == []
    pressed: Any = production_is_coherent(platform)
    assert not pressed.passed
    connection.execute("update duet.serving_workers set release = 'e2-i2-r2', refused = null")
    connection.commit()
    result, _ = tick(platform, None)
    assert result.asset_events[1].passed
    assert [entry.versions for entry in PostgresPromotionLog(connection).history()] == [SECOND]


def test_without_mlflow_the_history_and_the_workers_are_still_told(
    platform: Platform, connection: psycopg.Connection[Any]
) -> None:
    move(platform, FIRST, PRODUCTION)
    tick(platform, None)
    registry: Any = platform.registry
    registry.down = True
    result, _ = tick(platform, None)
    assert result.asset_events[1].passed
    assert len(result.asset_events[0].metadata["history"].records) == 1
