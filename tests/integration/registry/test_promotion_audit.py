"""The audit and the lock in a real Postgres."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.endpoints import Endpoints
from infra.postgres import connect
from registry.audit import PostgresPromotionLog, Promotion
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import AuditUnavailable, PromotionConflict, PromotionFailed
from registry.history import release_at
from registry.promotion import promote, rollback
from tests.fakes import MemoryRegistry
from tests.releases import register_release, write_release

FIRST, SECOND = ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[ArtifactKind, Path]]:
    return [write_release(tmp_path_factory.mktemp("releases"), seed) for seed in range(2)]


@pytest.fixture
def registry(written: list[dict[ArtifactKind, Path]]) -> MemoryRegistry:
    registry = MemoryRegistry()
    for paths in written:
        register_release(registry, paths)
    return registry


def rows(endpoints: Endpoints) -> list[Any]:
    with connect(endpoints.database_url) as other:
        return other.execute(
            "select release, model, version, from_stage, to_stage, actor, way, reason, gates, at"
            " from duet.promotions order by promotion_id"
        ).fetchall()


def test_each_promotion_is_three_rows_with_one_instant(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    log = PostgresPromotionLog(connection)
    promote(registry, log, FIRST, actor="ada", way="cli", reason="it's better; --")
    found = rows(endpoints)
    assert [row[:4] for row in found] == [
        ("e1-i1-r1", f"duet-{kind}", 1, "None") for kind in ("embedding", "index", "ranker")
    ]
    gates = {
        "verdict": "passed",
        "failures": {},
        "policy": "f" * 64,
        "judged_at": "2026-06-01T00:00:00+00:00",
        "against": None,
        "forced": False,
    }
    assert found[0][4:9] == (PRODUCTION, "ada", "cli", "it's better; --", gates)
    assert len({row[9] for row in found}) == 1
    (read,) = log.history()
    assert (read.versions, read.gates, read.reason, read.at) == (
        FIRST,
        gates,
        "it's better; --",
        found[0][9],
    )
    assert read.from_stages == dict.fromkeys(ArtifactKind, "None")
    assert log.history(STAGING) == []


def test_history_is_oldest_first_and_limited_to_the_newest(
    connection: psycopg.Connection[Any], registry: MemoryRegistry
) -> None:
    log = PostgresPromotionLog(connection)
    promote(registry, log, FIRST, actor="ada", way="cli")
    promote(registry, log, SECOND, actor="bob", way="automation")
    rollback(registry, log, actor="ada", way="cli")
    assert [(entry.versions, entry.rolled_back_from) for entry in log.history()] == [
        (FIRST, None),
        (SECOND, None),
        (FIRST, "e2-i2-r2"),
    ]
    assert [entry.actor for entry in log.history(limit=2)] == ["bob", "ada"]


def test_the_release_active_at_an_instant_is_known(connection: psycopg.Connection[Any]) -> None:
    log = PostgresPromotionLog(connection)
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    with log.exclusively():
        log.record(Promotion(FIRST, PRODUCTION, "ada", "cli", at=noon))
        log.record(Promotion(SECOND, PRODUCTION, "ada", "cli", at=noon + timedelta(hours=1)))
    assert release_at(log, noon - timedelta(seconds=1)) is None
    found = [release_at(log, noon + timedelta(minutes=minutes)) for minutes in (0, 59, 60)]
    assert [entry.versions for entry in found if entry] == [FIRST, FIRST, SECOND]


def test_a_failed_promotion_leaves_no_row(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    registry.fail_after(1)
    with pytest.raises(PromotionFailed):
        promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli")
    assert rows(endpoints) == []


def test_the_lock_is_held_against_another_connection_and_ends_with_the_transaction(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    with connect(endpoints.database_url) as other:
        with (
            PostgresPromotionLog(other).exclusively(),
            pytest.raises(PromotionConflict, match="Another promotion or rollback is under way"),
        ):
            promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli")
        assert registry.in_stage(PRODUCTION) == {}
    promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli")
    assert registry.resolve_stage(PRODUCTION) == FIRST


def test_a_promotion_whose_database_dies_is_undone(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli")
    with connect(endpoints.database_url) as victim:
        pid = victim.info.backend_pid

        def kill_the_session() -> None:
            registry.before_write = lambda: None
            with connect(endpoints.database_url, autocommit=True) as killer:
                killer.execute("select pg_terminate_backend(%s)", (pid,))

        registry.before_write = kill_the_session
        with pytest.raises(PromotionFailed, match="nothing has changed"):
            promote(registry, PostgresPromotionLog(victim), SECOND, actor="bob", way="cli")
    assert registry.resolve_stage(PRODUCTION) == FIRST
    assert [entry.versions for entry in PostgresPromotionLog(connection).history()] == [FIRST]


def test_an_audit_that_is_gone_refuses_before_anything_moves(endpoints: Endpoints, registry: MemoryRegistry) -> None:
    gone = connect(endpoints.database_url)
    gone.close()
    with pytest.raises(AuditUnavailable, match="cannot be used"):
        promote(registry, PostgresPromotionLog(gone), FIRST, actor="ada", way="cli")
    assert registry.in_stage(PRODUCTION) == {}


def test_the_audit_cannot_be_rewritten(connection: psycopg.Connection[Any], registry: MemoryRegistry) -> None:
    promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli")
    with pytest.raises(psycopg.Error, match="append only"), connection.transaction():
        connection.execute("update duet.promotions set actor = 'eve'")
