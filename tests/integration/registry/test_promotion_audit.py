"""The audit and the lock in a real Postgres."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import AuditUnavailable, PromotionConflict, PromotionFailed
from registry.promotion.audit import ORDERS, Pin, PostgresPromotionLog, Promotion, read_orders
from registry.promotion.history import release_at
from registry.promotion.promotion import promote, rollback
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
    promote(registry, log, FIRST, actor="ada", way="cli", feature_schema=None, reason="it's better; --")
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
    promote(registry, log, FIRST, actor="ada", way="cli", feature_schema=None)
    promote(registry, log, SECOND, actor="bob", way="automation", feature_schema=None)
    rollback(registry, log, actor="ada", way="cli", feature_schema=None)
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


def test_the_challenger_at_an_instant_is_known_too(
    connection: psycopg.Connection[Any], registry: MemoryRegistry
) -> None:
    log = PostgresPromotionLog(connection)
    promote(registry, log, FIRST, actor="ada", way="cli", feature_schema=None)
    promote(registry, log, SECOND, actor="ada", way="cli", feature_schema=None, stage=STAGING)
    promote(registry, log, SECOND, actor="ada", way="cli", feature_schema=None)
    (staged,) = log.history(STAGING)
    assert staged.at is not None
    promoted = log.history()[-1].at
    assert promoted is not None
    tick = timedelta(microseconds=1)
    found = [release_at(log, at, STAGING) for at in (staged.at - tick, staged.at, promoted - tick, promoted)]
    assert [entry.versions if entry else None for entry in found] == [None, SECOND, SECOND, None]


def test_instants_only_grow_whatever_clock_they_come_from(connection: psycopg.Connection[Any]) -> None:
    log = PostgresPromotionLog(connection)
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    with log.observing():
        for at in (noon, noon - timedelta(hours=1)):
            log.record(Promotion(FIRST, PRODUCTION, "mlflow", "ui", at=at))
    instants = [entry.at for entry in log.history()]
    assert instants == [noon, noon + timedelta(microseconds=1)]
    assert len(log.history(until=noon)) == 1


def test_a_pin_is_open_until_it_is_closed_and_a_later_one_takes_its_place(
    connection: psycopg.Connection[Any], endpoints: Endpoints
) -> None:
    log = PostgresPromotionLog(connection)
    digests = {kind: kind.value * 3 for kind in ArtifactKind}

    def orders() -> tuple[int, Pin | None]:
        with connect(endpoints.database_url) as other:
            row = other.execute(ORDERS).fetchone()
        assert row is not None
        return read_orders(row)

    assert (orders(), log.open_pin()) == ((0, None), None)
    with log.ordering():
        log.pin(Pin(FIRST, digests, "ada", "cli", "worse"))
    first = log.open_pin()
    assert first is not None
    assert (first.versions, first.digests, first.reason) == (FIRST, digests, "worse")
    seen = orders()[1]
    assert seen is not None
    assert (seen.versions, seen.digests, seen.pin_id) == (FIRST, digests, first.pin_id)
    with log.ordering():
        log.pin(Pin(SECOND, digests, "ada", "cli"))
    with log.observing():
        log.close_pin("somebody was slow", first)
    second = log.open_pin()
    assert second is not None
    assert second.versions == SECOND, "who carried out an older pin does not close this one"
    with log.observing():
        log.close_pin("the stages follow", second)
    assert (orders()[1], log.open_pin()) == (None, None)


def test_who_gives_an_order_waits_for_who_observes_and_a_rollback_does_not(
    connection: psycopg.Connection[Any], endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.promotion.audit._PATIENCE_S", 0.2)
    log = PostgresPromotionLog(connection)
    with connect(endpoints.database_url) as other:
        watching = PostgresPromotionLog(other)
        with watching.observing():
            with log.ordering():
                pass
            with pytest.raises(PromotionConflict), log.observing():
                pass
            with pytest.raises(PromotionConflict), log.exclusively():
                pass
        with watching.ordering():
            with pytest.raises(PromotionConflict), log.exclusively():
                pass
            with log.observing(patiently=True):
                pass


def test_a_failed_promotion_leaves_no_row(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    registry.fail_after(1)
    with pytest.raises(PromotionFailed):
        promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli", feature_schema=None)
    assert rows(endpoints) == []


def test_the_lock_is_held_against_another_connection_and_ends_with_the_transaction(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    with connect(endpoints.database_url) as other:
        with (
            PostgresPromotionLog(other).exclusively(),
            pytest.raises(PromotionConflict, match="Another promotion or rollback is under way"),
        ):
            promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli", feature_schema=None)
        assert registry.in_stage(PRODUCTION) == {}
    promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli", feature_schema=None)
    assert registry.resolve_stage(PRODUCTION) == FIRST


def test_a_promotion_whose_database_dies_is_undone(
    connection: psycopg.Connection[Any], endpoints: Endpoints, registry: MemoryRegistry
) -> None:
    promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli", feature_schema=None)
    with connect(endpoints.database_url) as victim:
        pid = victim.info.backend_pid

        def kill_the_session() -> None:
            registry.before_write = lambda: None
            with connect(endpoints.database_url, autocommit=True) as killer:
                killer.execute("select pg_terminate_backend(%s)", (pid,))

        registry.before_write = kill_the_session
        with pytest.raises(PromotionFailed, match="nothing has changed"):
            promote(registry, PostgresPromotionLog(victim), SECOND, actor="bob", way="cli", feature_schema=None)
    assert registry.resolve_stage(PRODUCTION) == FIRST
    assert [entry.versions for entry in PostgresPromotionLog(connection).history()] == [FIRST]


def test_an_audit_that_is_gone_refuses_before_anything_moves(endpoints: Endpoints, registry: MemoryRegistry) -> None:
    gone = connect(endpoints.database_url)
    gone.close()
    with pytest.raises(AuditUnavailable, match="cannot be used"):
        promote(registry, PostgresPromotionLog(gone), FIRST, actor="ada", way="cli", feature_schema=None)
    assert registry.in_stage(PRODUCTION) == {}


def test_the_audit_cannot_be_rewritten(connection: psycopg.Connection[Any], registry: MemoryRegistry) -> None:
    promote(registry, PostgresPromotionLog(connection), FIRST, actor="ada", way="cli", feature_schema=None)
    owner = connection.execute(
        "select tableowner = current_user from pg_tables where schemaname = 'duet' and tablename = 'promotions'"
    ).fetchone()
    assert owner == (True,), "not even the owner of the table may"
    for statement in (
        "update duet.promotions set actor = 'eve'",
        "delete from duet.promotions",
        "truncate duet.promotions",
    ):
        with pytest.raises(psycopg.Error, match="append only"), connection.transaction():
            connection.execute(psycopg.sql.SQL(statement))
