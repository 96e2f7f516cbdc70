import asyncio
import json
from typing import Any

import psycopg
import pytest
import redis
import typer
from typer.testing import CliRunner

from infra import redis as infra_redis
from infra.clock import SystemClock
from infra.db import postgres
from infra.endpoints import Endpoints
from infra.errors import ConfigurationError
from infra.metrics import serving_metrics
from infra.settings import Settings
from serving.access.authentication import Authenticator
from serving.access.keys import Key
from serving.access.limits import RateLimits
from serving.access.policy import guard_start
from serving.access.store import create_key, list_keys, revoke_key
from serving.commands import register
from serving.errors import AmbiguousKey, KeyNameTaken, NoSuchKey, RateLimited, Unauthorized


@pytest.fixture
def duet(endpoints: Endpoints, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in endpoints.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DUET_ENVIRONMENT", "test")
    app = typer.Typer()
    register(app)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_key_is_shown_once_and_never_kept(duet: Any, connection: psycopg.Connection[Any]) -> None:
    made = duet("keys", "create", "website", "--requests-per-minute", "60", "--tester")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    secret = key.rpartition("_")[2]
    listed = duet("keys", "list").output
    assert "website" in listed
    assert key.split("_")[1] in listed
    rows = json.dumps(connection.execute("select row_to_json(k) from duet.api_keys k").fetchall())
    assert secret not in listed + rows
    [row] = list_keys(connection)
    assert (row.name, row.requests_per_minute, row.tester, row.revoked_at) == ("website", 60, True, None)


def test_a_revoked_key_stays_in_the_list_and_its_name_taken(duet: Any, connection: psycopg.Connection[Any]) -> None:
    duet("keys", "create", "website")
    assert duet("keys", "revoke", "website").exit_code == 0
    connection.rollback()
    [row] = list_keys(connection)
    assert row.revoked_at is not None
    with pytest.raises(KeyNameTaken):
        create_key(connection, "website")
    with pytest.raises(NoSuchKey):
        revoke_key(connection, "nobody's")
    assert duet("keys", "create", "").exit_code != 0


def test_what_is_the_id_of_one_key_and_the_name_of_another_ends_neither(
    duet: Any, connection: psycopg.Connection[Any]
) -> None:
    create_key(connection, "first")
    [first] = list_keys(connection)
    with pytest.raises(KeyNameTaken, match="is the id of a key"):
        create_key(connection, first.key_id)
    create_key(connection, "second")
    connection.execute("update duet.api_keys set name = %s where name = 'second'", (first.key_id,))  # made before this
    connection.commit()
    refused = duet("keys", "revoke", first.key_id)
    assert isinstance(refused.exception, AmbiguousKey)
    assert [key.revoked_at for key in list_keys(connection)] == [None, None]
    connection.commit()
    assert duet("keys", "revoke", first.key_id, "--by", "id").exit_code == 0
    assert {key.name for key in list_keys(connection) if key.revoked_at} == {"first"}


def test_workers_follow_the_table(connected_settings: Settings, connection: psycopg.Connection[Any]) -> None:
    assert connected_settings.database_url is not None
    url = connected_settings.database_url.get_secret_value()
    key = create_key(connection, "website")
    connection.commit()
    headers = {b"x-api-key": key.encode()}
    auth = {"mode": "required"}
    settings = Settings(serving={"auth": auth}, postgres={"pool_size": 1, "max_overflow": 1})

    async def go() -> None:
        authenticator = Authenticator(settings, SystemClock(), serving_metrics())
        async with postgres.open_pool(url, settings.postgres) as pool:
            table = authenticator.attach(pool, infra_redis.connect_async("redis://127.0.0.1:1", settings.redis))
            await table.refresh()
            caller = authenticator.admit(headers)
            assert caller.key is not None
            assert caller.key.name == "website"
            revoke_key(connection, "website")
            connection.commit()
            await table.refresh()
            with pytest.raises(Unauthorized):
                authenticator.admit(headers)

    asyncio.run(go())


def test_production_does_not_start_before_there_is_a_key(
    connected_settings: Settings, connection: psycopg.Connection[Any]
) -> None:
    guarded = connected_settings.web.model_copy(update={"auth": "required"})
    production = connected_settings.model_copy(update={"environment": "production", "web": guarded})
    with pytest.raises(ConfigurationError, match="duet keys create"):
        guard_start(production)
    create_key(connection, "website")
    connection.commit()
    guard_start(production)


KEY = Key("d" * 12, "shared", bytes(32), 2, tester=False)


def test_limits_in_redis_hold_for_all_workers_together(
    endpoints: Endpoints, redis_client: redis.Redis, settings: Settings
) -> None:
    async def go() -> None:
        clients = [infra_redis.connect_async(endpoints.redis_url, settings.redis) for _ in range(2)]
        one, other = (
            RateLimits(default_per_minute=9, clock=SystemClock(), timeout_s=10.0, redis=client) for client in clients
        )
        await one.count(KEY)
        await other.count(KEY)
        with pytest.raises(RateLimited):
            await one.count(KEY)
        for client in clients:
            await client.aclose()

    asyncio.run(go())
    assert redis_client.keys("*")


def test_without_redis_each_worker_counts_for_itself_and_nobody_waits() -> None:
    async def go() -> None:
        client = infra_redis.connect_async("redis://127.0.0.1:1", Settings().redis)
        limits = RateLimits(default_per_minute=9, clock=SystemClock(), timeout_s=0.05, redis=client)
        await limits.count(KEY)
        await limits.count(KEY)
        with pytest.raises(RateLimited):
            await limits.count(KEY)
        await client.aclose()

    asyncio.run(go())
