"""Interactions and people on Redis Streams: stored once, whoever is killed; what cannot be stored is put aside."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import redis

from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from infra.stream_settings import StreamSettings
from serving.errors import NotConsuming, StreamMoved
from serving.profiles.models import PeopleBatch
from serving.profiles.stream_positions import StreamPosition, StreamRead
from serving.streams.entries import StreamEntry
from serving.streams.people_entries import IN_ORDER
from serving.streams.sign_of_life import require_life
from serving.streams.watcher import StreamWatcher
from tests.fault.proxy import Mode, TcpProxy
from tests.serving_world import insert_people
from tests.streams import EVENTS, LIKE, PEOPLE, Desk, Readers, consuming
from tests.waiting import until


@pytest.fixture
def desk(
    connection: psycopg.Connection[Any], redis_client: redis.Redis, endpoints: Endpoints, connected_settings: Settings
) -> Desk:
    insert_people(connection, 6)
    return Desk(connection, redis_client, endpoints, connected_settings)


@pytest.mark.parametrize(("stream", "failpoint"), [(EVENTS, "interactions"), (PEOPLE, "people")])
def test_entries_are_stored_once_though_a_consumer_is_killed_between_commit_and_acknowledgement(
    desk: Desk, tmp_path: Path, stream: str, failpoint: str
) -> None:
    likes = [{**LIKE, "event_id": str(uuid4())}, {**LIKE, "target_id": 4}, {**LIKE, "target_id": 6}]
    desk.add(EVENTS, *likes, likes[0])
    desk.add(PEOPLE, {"user_id": "anna", "interests": ["chess"]}, {"user_id": "ben"})
    with consuming(desk.settings, tmp_path / "killed.log", FAILPOINT=f"stream.after_{failpoint}") as killed:
        assert killed.wait(60) == -9, (tmp_path / "killed.log").read_text()
    stored = desk.stored()
    assert desk.pending(stream) == {EVENTS: 4, PEOPLE: 2}[stream], "it was killed after it had acknowledged"
    assert len(stored[stream]) == {EVENTS: 3, PEOPLE: 2}[stream], "it was killed before it had committed"
    desk.add(PEOPLE, {"user_id": "anna", "interests": ["jazz"]})
    with consuming(desk.settings, tmp_path / "next.log", STREAM__CLAIM_AFTER_S="0.01") as following:
        until(
            lambda: desk.pending(EVENTS) == desk.pending(PEOPLE) == 0 and desk.read_up_to_the_end(),
            instead=(tmp_path / "next.log").read_text,
        )
        require_life(desk.settings, SystemClock().now())
        following.terminate()
        assert following.wait(30) == 0, (tmp_path / "next.log").read_text()
    with pytest.raises(NotConsuming):
        require_life(desk.settings, SystemClock().now())
    now = desk.stored()
    assert {EVENTS: len(now[EVENTS]), PEOPLE: [name for name, _ in now[PEOPLE]]} == {EVENTS: 3, PEOPLE: ["anna", "ben"]}
    assert set(stored[EVENTS]) <= set(now[EVENTS])
    assert desk.rows("select interests from duet.users where external_id = 'anna'") == [(["jazz"],)]
    assert desk.dead(EVENTS) == desk.dead(PEOPLE) == []


@pytest.mark.parametrize("away", ["postgres", "redis"])
def test_an_outage_loses_nothing_and_puts_nothing_aside(desk: Desk, tmp_path: Path, away: str) -> None:
    name, url = {
        "postgres": ("DATABASE_URL", desk.endpoints.database_url),
        "redis": ("REDIS_URL", desk.endpoints.redis_url),
    }[away]
    place = urlsplit(url)
    log = tmp_path / "stream.log"
    with TcpProxy(str(place.hostname), place.port or 0) as proxy:
        through = url.replace(f":{place.port}/", f":{proxy.port}/")
        with consuming(desk.settings, log, **{name: through}) as consumer:
            desk.add(EVENTS, LIKE)
            until(lambda: len(desk.rows("select from duet.interactions")) == 1, instead=log.read_text)
            proxy.set(Mode.DOWN)
            desk.add(EVENTS, *({**LIKE, "event_id": str(uuid4())} for _ in range(500)))
            desk.add(PEOPLE, *({"user_id": f"new-{n}"} for n in range(300)))
            until(lambda: log.read_text().count("stream_waits") > 2, instead=log.read_text)
            assert consumer.poll() is None
            assert desk.pending(EVENTS) <= 200, "it may hold one batch"
            proxy.heal()
            until(
                lambda: (
                    len(desk.rows("select from duet.interactions")) == 501
                    and len(desk.rows("select from duet.users where external_id like 'new-%'")) == 300
                ),
                instead=log.read_text,
            )
            desk.client.delete(EVENTS)  # a Redis that lost what it had: the group is gone, too
            desk.add(EVENTS, LIKE)
            until(lambda: len(desk.rows("select from duet.interactions")) == 502, instead=log.read_text)
    assert desk.dead(EVENTS) == desk.dead(PEOPLE) == []
    assert "stream_fails" not in log.read_text()


def test_what_a_dead_consumer_read_is_taken_over(desk: Desk) -> None:
    desk.add(EVENTS, LIKE, {**LIKE, "target_id": 4})

    async def go(readers: Readers) -> None:
        assert len(await readers.events.fresh("dead", 200)) == 2
        following = readers.event_entries("living")
        await following.round()
        assert not desk.rows("select from duet.interactions"), "it may still be at work"
        readers.events._settings = StreamSettings(claim_after_s=0.001)
        await asyncio.sleep(0.01)
        following = readers.event_entries("living")
        for _ in range(2):
            await following.round()

    desk.use(go)
    assert len(desk.rows("select from duet.interactions")) == 2
    assert desk.pending(EVENTS) == 0


@pytest.mark.parametrize(
    ("stream", "poison", "code", "field", "message"),
    [
        (EVENTS, "not json", "malformed_body", "json", "The body is not JSON"),
        (EVENTS, {**LIKE, "kind": "wink"}, "invalid_request", "kind", "Input should be"),
        (EVENTS, {**LIKE, "target_id": 1}, "invalid_request", "target_id", "must be somebody else"),
        (EVENTS, {**LIKE, "target_id": 99}, "unknown_user", "target_id", "nobody has this id"),
        (EVENTS, "[" + "1," * 40000 + "1]", "body_too_large", "json", "at most 65536"),
        (PEOPLE, {"user_id": 7, "age_min": 40, "age_max": 30}, "out_of_range", "age_min", "must not be above"),
        (PEOPLE, {"user_id": 7, "latitude": 1.0}, "missing_value", "longitude", "must"),
        (PEOPLE, {"interests": []}, "wrong_type", "user_id", "required"),
        (PEOPLE, {"user_id": 7, "bio": "\x00"}, "malformed_body", "json", "NUL"),
    ],
)
def test_what_cannot_be_stored_is_put_aside_with_the_reason_and_blocks_nobody(
    desk: Desk, stream: str, poison: Any, code: str, field: str, message: str
) -> None:
    good = {EVENTS: LIKE, PEOPLE: {"user_id": 8}}[stream]
    _, second, _ = desk.add(stream, {**good, "event_id": str(uuid4())} if stream == EVENTS else good, poison, good)
    desk.store(unknown_wait_s=0)
    (told,) = desk.dead(stream)
    assert (told["id"], told["code"], told["field"]) == (second, code, field), told
    assert message in told["message"]
    assert told["json"] == (poison if isinstance(poison, str) else json.dumps(poison))[:65536]
    assert desk.pending(stream) == 0
    assert len(desk.rows("select from duet.interactions")) == (2 if stream == EVENTS else 0)
    assert len(desk.rows("select from duet.users")) == (6 if stream == EVENTS else 7)


@pytest.fixture
def pickier(desk: Desk) -> Iterator[Desk]:
    """A database that cannot take the values of one row, whatever our own checks say."""
    desk.run(
        "create function pg_temp.too_much() returns trigger language plpgsql as"
        " $$ begin raise exception using errcode = '22003', message = 'too much'; end $$"
    )
    desk.run(
        "create trigger too_much before insert on duet.interactions for each row when (new.target_id = 6)"
        " execute function pg_temp.too_much()"
    )
    desk.run(
        "create trigger too_much before insert on duet.users for each row when (new.user_id = 8)"
        " execute function pg_temp.too_much()"
    )
    yield desk
    for table in ("interactions", "users"):
        desk.run(f"drop trigger too_much on duet.{table}")


@pytest.mark.parametrize("stream", [EVENTS, PEOPLE])
def test_a_value_that_only_the_database_refuses_costs_its_own_entry_alone(pickier: Desk, stream: str) -> None:
    bodies = {
        EVENTS: [LIKE, {**LIKE, "target_id": 6}, {**LIKE, "target_id": 4}],
        PEOPLE: [{"user_id": 7}, {"user_id": 8}, {"user_id": 9}],
    }[stream]
    _, refused, _ = pickier.add(stream, *bodies)
    pickier.store(rounds=6)
    (told,) = pickier.dead(stream)
    assert (told["id"], told["message"]) == (refused, "cannot be stored: NumericValueOutOfRange")
    assert pickier.pending(stream) == 0
    stored = {
        EVENTS: "select target_id from duet.interactions order by 1",
        PEOPLE: "select user_id from duet.users where user_id > 6 order by 1",
    }[stream]
    assert pickier.rows(stored) == {EVENTS: [(2,), (4,)], PEOPLE: [(7,), (9,)]}[stream]


def test_an_entry_without_an_event_id_or_a_time_gets_both_from_its_place_on_the_stream(desk: Desk) -> None:
    (entry,) = desk.add(EVENTS, LIKE)
    desk.store()
    ((event_id, at_ms),) = desk.rows(
        "select event_id, (extract(epoch from occurred_at) * 1000)::bigint from duet.interactions"
    )
    assert event_id == StreamEntry(entry, b"").event_id(EVENTS)
    assert at_ms == int(entry.partition("-")[0])


def test_an_interaction_waits_for_people_who_are_still_on_their_way(desk: Desk) -> None:
    desk.add(EVENTS, {**LIKE, "target_id": "late"}, {**LIKE, "target_id": 4})

    async def go(readers: Readers) -> None:
        events, people = readers.event_entries("one"), readers.people_entries()
        for _ in range(3):
            await events.round()
        assert len(desk.rows("select from duet.interactions")) == 1
        desk.add(PEOPLE, {"user_id": "late"})
        for _ in range(2):
            await people.round()
        events = readers.event_entries("one")
        for _ in range(2):
            await events.round()

    desk.use(go)
    assert len(desk.rows("select from duet.interactions")) == 2
    assert desk.dead(EVENTS) == []


def test_people_are_changed_in_the_order_of_the_stream_also_within_one_batch(desk: Desk) -> None:
    desk.add(PEOPLE, {"user_id": 7, "gender": "woman"}, {"user_id": 7, "bio": "one"}, {"user_id": 7, "bio": "two"})
    desk.store(rounds=5)
    assert desk.rows("select gender, bio from duet.users where user_id = 7") == [("woman", "two")]
    assert desk.dead(PEOPLE) == []


def test_an_older_profile_that_comes_again_changes_nothing_and_brings_nobody_back(desk: Desk) -> None:
    desk.run("update duet.users set age_max = 30 where user_id = 6")
    desk.add(PEOPLE, {"user_id": 7, "bio": "old"}, {"user_id": 8}, {"user_id": 6, "age_min": 40})

    async def lost(entries: list[StreamEntry], *_: Any) -> None:
        if entries:
            raise redis.ConnectionError("the acknowledgement is lost")

    async def go(readers: Readers) -> None:
        settle = readers.people.settle
        await readers.people_entries().round()  # reads them
        readers.people.settle = lost  # type: ignore[method-assign]
        with pytest.raises(redis.ConnectionError):
            await readers.people_entries().round()
        readers.people.settle = settle  # type: ignore[method-assign]
        # Meanwhile the app changes one by a call, and erases the other.
        await readers.stores.profiles.batch(PeopleBatch(people=[{"user_id": 7, "bio": "new"}]), "call")
        desk.run("delete from duet.users where user_id = 8")
        assert desk.pending(PEOPLE) == 3
        for _ in range(2):
            await readers.people_entries().round()

    desk.use(go)
    assert desk.rows("select user_id, bio from duet.users where user_id > 6") == [(7, "new")]
    assert [told["code"] for told in desk.dead(PEOPLE)] == ["out_of_range"]
    assert desk.pending(PEOPLE) == 0


def test_a_process_that_slept_cannot_store_what_it_read_before_others_went_on(desk: Desk) -> None:
    desk.add(PEOPLE, {"user_id": 7, "bio": "old"})

    async def go(readers: Readers) -> None:
        position = await StreamPosition.read(readers.stores.writes, PEOPLE)
        (slept,) = await readers.people.fresh(IN_ORDER, 1)
        desk.add(PEOPLE, {"user_id": 7, "bio": "new"})
        for _ in range(4):
            await readers.people_entries().round()
        with pytest.raises(StreamMoved):
            await readers.stores.profiles.batch(
                PeopleBatch(people=[{"user_id": 7, "bio": "old"}]), "slept", StreamRead(position, [slept.padded])
            )

    desk.use(go)
    assert desk.rows("select bio from duet.users where user_id = 7") == [("new",)]


def test_the_lag_and_the_dead_letters_are_in_health_and_metrics(desk: Desk) -> None:
    desk.add(EVENTS, LIKE, "poison")
    desk.store()
    desk.add(EVENTS, LIKE, LIKE, LIKE)

    async def go(readers: Readers) -> tuple[Any, Any]:
        await readers.events.fresh("reads and dies", 1)
        settings = readers.settings
        watcher = StreamWatcher(settings, readers.client, clock=SystemClock(), metrics=serving_metrics())
        await watcher.measure()
        behind = watcher.report()
        entries = readers.event_entries("reads and dies")
        for _ in range(4):
            await entries.round()
        await watcher.measure()
        return behind, watcher.report()

    behind, done = desk.use(go)
    lag = behind.lags[EVENTS]
    assert (lag.waiting, lag.dead_letters, behind.lags[PEOPLE].waiting) == (3, 1, 0)
    assert lag.oldest_s > 0
    assert (done.lags[EVENTS].waiting, done.lags[EVENTS].oldest_s) == (0, 0)
    (family,) = serving_metrics().stream_settled.collect()
    told = {(one.labels["stream"], one.labels["outcome"]): one.value for one in family.samples}
    assert told[(EVENTS, "stored")] == 4
    assert told[(EVENTS, "dead_letter")] == 1


def test_only_what_is_stored_and_old_enough_is_removed_from_a_stream(desk: Desk) -> None:
    desk.add(EVENTS, LIKE, LIKE)
    desk.store()
    desk.add(EVENTS, LIKE)

    async def go(readers: Readers) -> None:
        await readers.events.trim(SystemClock().now())

    desk.use(go)
    assert desk.client.xlen(EVENTS) == 3
    desk.use(go, keep_s=0.001)
    assert desk.client.xlen(EVENTS) == 1


def test_entries_that_a_producer_removed_too_early_are_counted_and_block_nobody(desk: Desk) -> None:
    first, *_ = desk.add(EVENTS, LIKE, LIKE)

    async def go(readers: Readers) -> int:
        await readers.events.fresh("one", 2)
        desk.client.xdel(EVENTS, first)
        entries = readers.event_entries("one")
        for _ in range(2):
            await entries.round()
        return (await readers.events.lag()).settled["removed"]

    assert desk.use(go) == 1
    assert len(desk.rows("select from duet.interactions")) == 1
    assert desk.pending(EVENTS) == 0


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="name two streams"):
        StreamSettings(interactions="one", people="one")
    with pytest.raises(ValueError, match="redis://host:6379/0"):
        StreamSettings(url="http://localhost:6379")  # type: ignore[arg-type]
