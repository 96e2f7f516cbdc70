import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from feature_repo.kinds import Kind
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from serving.api.models import InteractionRequest, StoredInteraction
from serving.errors import BreakerOpen, EventConflict, InvalidRequest, StorageUnavailable, UnknownUser
from serving.people.interactions import Interactions
from serving.people.statements import Storage
from tests.clocks import FixedClock
from tests.on_pool import on_pool
from tests.serving_fakes import closed_breaker
from tests.serving_world import insert_people

REQUEST_ID = "mine-7"


class Desk:
    """Stores interactions one after the other."""

    def __init__(self, endpoints: Endpoints, settings: Settings, clock: FixedClock) -> None:
        self.database_url, self.settings, self.clock = endpoints.database_url, settings, clock

    def store(self, *, database_url: str | None = None, **fields: Any) -> StoredInteraction:
        request = InteractionRequest(**{"actor_id": 1, "target_id": 2, "kind": Kind.LIKE, **fields})

        async def use(pool: Any) -> StoredInteraction:
            desk = Interactions(Storage(pool, closed_breaker(), 2.0), metrics=serving_metrics())
            return await desk.store(request, REQUEST_ID)

        return on_pool(database_url or self.database_url, self.settings, use)


@pytest.fixture
def desk(connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, clock: FixedClock) -> Desk:
    insert_people(connection, 4)
    return Desk(endpoints, settings, clock)


def stored(connection: psycopg.Connection[Any]) -> list[Any]:
    connection.rollback()
    return connection.execute("select actor_id, target_id, kind, occurred_at from duet.interactions").fetchall()


def now(connection: psycopg.Connection[Any]) -> datetime:
    """Return what the clock of the database says."""
    connection.rollback()
    ((at,),) = connection.execute("select clock_timestamp()").fetchall()
    assert isinstance(at, datetime)
    return at


def test_what_is_acknowledged_is_committed(desk: Desk, connection: psycopg.Connection[Any]) -> None:
    before = now(connection)
    answer = desk.store()
    assert (answer.status, answer.matched, answer.request_id) == ("stored", False, REQUEST_ID)
    ((*what, at),) = stored(connection)
    assert what == [1, 2, "like"]
    assert before <= at <= now(connection)


def test_the_same_event_is_stored_once(desk: Desk, connection: psycopg.Connection[Any]) -> None:
    event_id = uuid4()
    assert desk.store(event_id=event_id).status == "stored"
    assert desk.store(event_id=event_id).status == "known"
    assert len(stored(connection)) == 1


def test_an_event_id_that_means_something_else_is_refused(desk: Desk) -> None:
    event_id = uuid4()
    desk.store(event_id=event_id)
    with pytest.raises(EventConflict):
        desk.store(event_id=event_id, kind=Kind.PASS)


def test_likes_both_ways_are_a_match(desk: Desk) -> None:
    assert not desk.store().matched
    assert desk.store(actor_id=2, target_id=1, kind=Kind.SUPERLIKE).matched
    assert not desk.store(actor_id=2, target_id=1, kind=Kind.MESSAGE).matched


def test_unknown_people_are_named(desk: Desk, connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(UnknownUser) as refusal:
        desk.store(target_id=99)
    assert [detail["field"] for detail in refusal.value.details] == ["target_id"]
    assert stored(connection) == []


@pytest.mark.parametrize("ended", [Kind.PASS, Kind.BLOCK, Kind.REPORT])
def test_a_like_after_the_other_side_ended_it_matches_nobody(desk: Desk, ended: Kind) -> None:
    desk.store(actor_id=2, target_id=1)
    desk.store(actor_id=2, target_id=1, kind=ended)
    assert not desk.store().matched


def test_a_match_comes_back_after_a_pass_and_never_after_a_block(desk: Desk) -> None:
    event_id = uuid4()
    desk.store(actor_id=2, target_id=1)
    assert desk.store(event_id=event_id).matched
    assert desk.store(event_id=event_id).matched  # the first answer was lost on its way
    desk.store(actor_id=2, target_id=1, kind=Kind.PASS)
    assert not desk.store(event_id=event_id).matched
    assert desk.store(actor_id=2, target_id=1).matched
    desk.store(kind=Kind.BLOCK)
    assert not desk.store(actor_id=2, target_id=1).matched


def test_a_like_that_comes_late_stands_behind_the_pass_that_came_after_it(
    desk: Desk, connection: psycopg.Connection[Any]
) -> None:
    desk.store(actor_id=2, target_id=1)
    desk.store(kind=Kind.PASS)
    assert not desk.store(occurred_at=now(connection) - timedelta(hours=1)).matched
    assert desk.store().matched


def test_of_two_who_like_each_other_at_the_same_instant_one_hears_of_the_match(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings
) -> None:
    tries = 400
    connection.execute("insert into duet.users (user_id) select generate_series(1, %s)", (2 * tries,))
    connection.commit()

    async def use(pool: Any) -> list[int]:
        desk = Interactions(Storage(pool, closed_breaker(), 5.0), metrics=serving_metrics())

        async def like(actor: int, target: int) -> bool:
            request = InteractionRequest(actor_id=actor, target_id=target, kind=Kind.LIKE)
            return (await desk.store(request, REQUEST_ID)).matched

        pairs = [(one, one + 1) for one in range(1, 2 * tries, 2)]
        return [sum(await asyncio.gather(like(one, other), like(other, one))) for one, other in pairs]

    assert on_pool(endpoints.database_url, settings, use) == [1] * tries


@pytest.mark.parametrize("ended", [Kind.BLOCK, Kind.PASS])
def test_a_like_at_the_same_instant_as_the_end_of_the_others_matches_only_where_it_came_first(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, ended: Kind
) -> None:
    tries = 200
    connection.execute("insert into duet.users (user_id) select generate_series(1, %s)", (2 * tries,))
    connection.commit()

    async def use(pool: Any) -> list[tuple[bool, bool]]:
        desk = Interactions(Storage(pool, closed_breaker(), 5.0), metrics=serving_metrics(), notify=lambda: None)

        async def send(actor: int, target: int, kind: Kind = Kind.LIKE) -> bool:
            request = InteractionRequest(actor_id=actor, target_id=target, kind=kind)
            return (await desk.store(request, REQUEST_ID)).matched

        said = []
        for one in range(1, 2 * tries, 2):
            await send(one + 1, one)
            both = [send(one, one + 1), send(one + 1, one, ended)]
            turn = 1 if one % 4 == 1 else -1  # each of them has the start of the other as often
            at_once = (await asyncio.gather(*both[::turn]))[::turn]
            said.append((at_once[0], await send(one, one + 1)))
        return said

    said = on_pool(endpoints.database_url, settings, use)
    assert [later for _, later in said] == [False] * tries
    came_first = connection.execute(
        "select min(happened.occurred_at) < max(ending.occurred_at) from duet.interactions happened"
        " join duet.interactions ending on ending.actor_id = happened.target_id and ending.kind = %s"
        " where happened.actor_id %% 2 = 1 group by happened.actor_id order by happened.actor_id",
        (ended.value,),
    ).fetchall()
    assert [(matched,) for matched, _ in said] == came_first
    told = connection.execute("select actor_id from duet.webhook_events where kind = 'match' order by 1").fetchall()
    assert told == [(2 * place + 1,) for place, (matched, _) in enumerate(said) if matched]
    matches = "select one from generate_series(1, %s, 2) one, duet.pair_state(one, one + 1, 'infinity') as state"
    assert not connection.execute(f"{matches} where state.matched_at is not null", (2 * tries,)).fetchall()


def test_the_clock_of_the_database_bounds_what_a_client_says(desk: Desk, connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(InvalidRequest, match="future"):
        desk.store(occurred_at=now(connection) + timedelta(minutes=1))
    assert stored(connection) == []
    slightly_fast = now(connection) + timedelta(seconds=4)
    assert desk.store(occurred_at=slightly_fast).status == "stored"
    ((*_, at),) = stored(connection)
    assert at <= now(connection)


def test_what_is_known_stays_known_whatever_time_it_is_sent_with_again(
    desk: Desk, connection: psycopg.Connection[Any]
) -> None:
    event_id = uuid4()
    desk.store(event_id=event_id)
    assert desk.store(event_id=event_id, occurred_at=now(connection) + timedelta(days=2)).status == "known"
    assert len(stored(connection)) == 1


def test_without_a_database_nothing_is_acknowledged(desk: Desk) -> None:
    with pytest.raises(StorageUnavailable):
        desk.store(database_url="postgresql://nobody@127.0.0.1:9/none")


def test_an_open_breaker_refuses_at_once_and_says_when_to_come_back(
    endpoints: Endpoints, settings: Settings, clock: FixedClock
) -> None:
    interaction = InteractionRequest(actor_id=1, target_id=2, kind=Kind.LIKE)

    async def fails() -> None:
        raise OSError("down")

    async def use(pool: Any) -> StorageUnavailable:
        breaker = closed_breaker()
        for _ in range(20):
            with contextlib.suppress(OSError, BreakerOpen):
                await breaker.call(fails, 1.0)
        desk = Interactions(Storage(pool, breaker, 2.0), metrics=serving_metrics())
        with pytest.raises(StorageUnavailable) as refused:
            await desk.store(interaction, REQUEST_ID)
        return refused.value

    assert on_pool(endpoints.database_url, settings, use).retry_after_s == 1


def test_one_event_sent_many_times_at_once_is_stored_once(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, clock: FixedClock
) -> None:
    insert_people(connection, 4)
    interaction = InteractionRequest(actor_id=1, target_id=2, kind=Kind.LIKE, event_id=uuid4())

    async def use(pool: Any) -> list[str]:
        desk = Interactions(Storage(pool, closed_breaker(), 5.0), metrics=serving_metrics())
        answers = await asyncio.gather(*(desk.store(interaction, REQUEST_ID) for _ in range(12)))
        return sorted(answer.status for answer in answers)

    assert on_pool(endpoints.database_url, settings, use) == ["known"] * 11 + ["stored"]
    assert len(stored(connection)) == 1
