import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import psycopg
import pytest

from infra.db import postgres
from infra.endpoints import Endpoints
from infra.settings import Settings
from infra.tracing import request_span
from serving.errors import EligibilityUnknown
from serving.people import people_store
from serving.people.people_store import PairStanding, PostgresPeople, Rows
from tests.serving_fakes import closed_breaker
from tests.serving_world import START, insert_people, insert_person, interact
from tests.spans import traced

Result = TypeVar("Result")


def on_store(
    endpoints: Endpoints,
    settings: Settings,
    use: Callable[[PostgresPeople], Awaitable[Result]],
    *,
    pending_likes: bool = False,
) -> Result:
    async def go() -> Result:
        async with postgres.open_pool(endpoints.database_url, settings.postgres) as pool:
            return await use(PostgresPeople(pool, closed_breaker(), pending_likes=pending_likes))

    return asyncio.run(go())


def ids(rows: Rows) -> list[int]:
    return sorted(rows.columns["user_id"])


@pytest.fixture
def small(settings: Settings) -> Settings:
    limits = settings.postgres.model_copy(update={"pool_size": 2, "max_overflow": 0, "checkout_timeout_s": 5.0})
    return settings.model_copy(update={"postgres": limits})


def test_asking_postgres_is_a_part_of_the_trace_of_its_request(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 2)

    async def ask(people: PostgresPeople) -> None:
        with request_span("request"):
            await people.requester(1, 5.0)

    with traced() as spans:
        on_store(endpoints, small, ask)
    assert spans.below(spans.named("request")[0]) == {closed_breaker().name}


def test_a_requester_comes_with_profile_exclusions_and_taste(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 12)
    interact(connection, 1, [2, 4], "like")
    interact(connection, 1, 6, "pass")
    interact(connection, 1, 8, "block")
    interact(connection, 10, 1, "report")
    interact(connection, 12, 1, "like")
    interact(connection, 1, 12, "message")
    row = on_store(endpoints, small, lambda people: people.requester(1, 5.0))
    assert row is not None
    assert row.profile.columns["gender"] == ["woman"]
    assert row.excluded.tolist() == [1, 2, 4, 6, 8, 10]
    assert row.liked.tolist() == [4, 2]
    assert row.passed.tolist() == [6]


def test_the_latest_decision_about_somebody_is_the_one_that_counts_as_taste(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 4)
    interact(connection, 1, [4, 2], "pass")
    interact(connection, 1, [4, 4, 2], "like")
    row = on_store(endpoints, small, lambda people: people.requester(1, 5.0))
    assert row is not None
    assert set(row.liked.tolist()) == {2, 4}
    assert row.passed.tolist() == []


def test_a_profile_that_did_not_change_since_is_left_out(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 2)
    interact(connection, 1, 2, "like")
    updated = connection.execute("select updated_at from duet.users where user_id = 1").fetchone()
    assert updated is not None
    before = updated[0] - timedelta(microseconds=1)
    known = on_store(endpoints, small, lambda people: people.requester(1, 5.0, since=updated[0]))
    changed = on_store(endpoints, small, lambda people: people.requester(1, 5.0, since=before))
    assert known is not None
    assert changed is not None
    assert (known.profile, known.attributes) == (None, None)
    assert changed.profile.columns["user_id"] == [1]
    assert known.excluded.tolist() == changed.excluded.tolist() == [1, 2]
    assert known.updated_at == changed.updated_at == updated[0]


def test_of_people_who_did_not_change_only_the_index_is_read(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "insert into duet.users (user_id) select id from generate_series(1, 20000) as id order by random()"
    )
    connection.commit()
    connection.autocommit = True
    connection.execute("vacuum (analyze) duet.users")
    now, asked = connection.execute("select clock_timestamp(), array[2, 5, 9]::bigint[]").fetchone() or (None, None)
    standing = [[1], [1], [3], asked]
    index = {"Index Only Scan"}
    assert _scans_of_people(connection, people_store._REQUESTERS[False], [[1], now]) == index
    assert _scans_of_people(connection, people_store._STANDINGS[False], [*standing, now]) == index
    assert _scans_of_people(connection, people_store._REQUESTERS[False], [[1], None]) > index
    assert _scans_of_people(connection, people_store._STANDINGS[True], [*standing, now, ["jazz"], None]) > index


def _scans_of_people(connection: psycopg.Connection[Any], statement: bytes, parameters: list[Any]) -> set[str]:
    """Name the kinds of scans of `users` that were made for a statement."""
    with psycopg.RawCursor(connection) as cursor:
        row = cursor.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters).fetchone()
    assert row is not None
    nodes, found = [row[0][0]["Plan"]], set()
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "users" and node["Actual Loops"]:
            found.add(node["Node Type"])
    return found


def test_likes_that_wait_for_an_answer_come_latest_first_and_only_where_they_may(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 16)
    interact(connection, 2, 1, "like")
    interact(connection, 4, [1, 1], "superlike")  # a minute later than the others
    interact(connection, 6, 1, "like")
    interact(connection, 6, [3, 3, 1], "pass")  # changed their mind
    interact(connection, 8, 1, "pass")
    interact(connection, 10, 1, "message")
    for answered, kind in ((12, "like"), (14, "pass"), (16, "block")):
        interact(connection, answered, 1, "like")
        interact(connection, 1, answered, kind)
    told = on_store(endpoints, small, lambda people: people.requester(1, 5.0), pending_likes=True)
    assert told is not None
    assert told.pending.waiting.tolist() == [4, 2]
    assert told.pending.liked_by.tolist() == [4, 2, 6]
    untold = on_store(endpoints, small, lambda people: people.requester(1, 5.0))
    assert untold is not None
    assert untold.pending.waiting.size == untold.pending.liked_by.size == 0
    assert untold.excluded.tolist() == told.excluded.tolist() == [1, 12, 14, 16]


def test_the_statement_that_may_not_know_of_waiting_likes_does_not_read_them() -> None:
    told, untold = (people_store._REQUESTERS[allowed].decode() for allowed in (True, False))
    assert "waiting" in told
    assert "waiting" not in untold
    # Whoever blocked or reported the requester is all that it reads of what others did.
    assert untold.count("WHERE target_id = asked.user_id") == untold.count("AND kind IN ('block', 'report')") == 1


def test_those_who_are_read_together_get_what_they_get_alone(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 12)
    for actor in (1, 2, 3, 4):
        interact(connection, actor, [actor + 4, actor + 6], "like")
    interact(connection, 5, 2, "block")
    everybody = np.arange(1, 13)
    asked = [(user_id, everybody[: user_id % 4]) for user_id in (1, 2, 3, 4, 99, 2)]

    async def together(people: PostgresPeople) -> tuple[list[Any], list[Any]]:
        rows = asyncio.gather(*(people.requester(user_id, 5.0) for user_id, _ in asked))
        standings = asyncio.gather(
            *(people.standing(user_id, ids, since=START, interests=None, timeout_s=5.0) for user_id, ids in asked)
        )
        return await rows, await standings

    rows, standings = on_store(endpoints, small, together)
    for (user_id, ids), row, standing in zip(asked, rows, standings, strict=True):
        alone = on_store(endpoints, small, lambda people, user_id=user_id: people.requester(user_id, 5.0))
        assert str(row) == str(alone)
        assert (row is None) == (user_id == 99)
        stands = on_store(
            endpoints,
            small,
            lambda people, user_id=user_id, ids=ids: people.standing(
                user_id, ids, since=START, interests=None, timeout_s=5.0
            ),
        )
        assert str(standing) == str(stands)
        assert set(standing.allowed.tolist()) <= set(ids.tolist())
    assert str(rows[0]) != str(rows[1])


def test_nobody_has_an_unknown_id(connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings) -> None:
    assert on_store(endpoints, small, lambda people: people.requester(5, 5.0)) is None


def test_only_visible_undecided_unseparated_people_are_still_allowed(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 14)
    interact(connection, 1, 2, "pass")
    interact(connection, 1, 4, "report")
    interact(connection, 6, 1, "block")
    interact(connection, 8, 1, "pass")
    connection.execute("update duet.users set visible = false where user_id = 10")
    connection.commit()
    asked = np.array([2, 4, 6, 8, 10, 12, 99])

    def standing(interests: list[str] | None) -> list[int]:
        found = on_store(
            endpoints,
            small,
            lambda people: people.standing(1, asked, since=START, interests=interests, timeout_s=5.0),
        )
        return list(found.allowed.tolist())

    assert standing(None) == [8, 12]
    assert standing(["chess", "go"]) == [12]


def test_whoever_changed_since_the_snapshot_comes_with_a_fresh_profile(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 8)
    since = connection.execute("select clock_timestamp()").fetchone()
    connection.commit()
    connection.execute("update duet.users set age_min = 60 where user_id = 4")
    connection.execute("update duet.users set visible = false where user_id = 6")
    connection.commit()
    assert since is not None

    def standing(since: datetime | None) -> PairStanding:
        return on_store(
            endpoints,
            small,
            lambda people: people.standing(1, np.array([2, 4, 6]), since=since, interests=None, timeout_s=5.0),
        )

    now = standing(since[0])
    assert now.allowed.tolist() == [2, 4]
    assert (ids(now.changed), now.changed.columns["age_min"]) == ([4], [60])
    assert ids(standing(None).changed) == [2, 4]


def test_what_the_requester_does_and_who_separates_from_them_makes_another_version(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 8)

    def versions() -> tuple[int, int]:
        row = on_store(endpoints, small, lambda people: people.requester(1, 5.0))
        standing = on_store(
            endpoints,
            small,
            lambda people: people.standing(1, np.array([2]), since=None, interests=None, timeout_s=5.0),
        )
        assert row is not None
        assert row.updated_at == standing.updated_at
        return row.version, standing.version

    seen = [versions()]
    for actor, target, kind in ((1, 2, "pass"), (4, 1, "block"), (1, 6, "message")):
        interact(connection, actor, target, kind)
        seen.append(versions())
    assert [one for one, other in seen if one == other] == [0, 1, 2, 3]
    interact(connection, 8, 1, "like")
    assert versions() == (3, 3)


def test_a_requester_who_is_gone_has_no_row_any_more(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 2)
    gone = on_store(
        endpoints,
        small,
        lambda people: people.standing(9, np.array([2]), since=None, interests=None, timeout_s=5.0),
    )
    assert gone.updated_at is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_random_draw_wraps_around_and_knows_no_hidden_people(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings, share: float
) -> None:
    insert_people(connection, 10)
    connection.execute("update duet.users set visible = false where user_id = 3")
    connection.commit()
    everybody = on_store(endpoints, small, lambda people: people.some_visible(share, 50, 5.0))
    assert ids(everybody.rows) == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert set(everybody.propensity.tolist()) == {1.0}
    assert len(on_store(endpoints, small, lambda people: people.some_visible(share, 4, 5.0))) == 4


def test_a_draw_says_how_probable_each_person_was_between_gaps_of_any_size(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    for user_id in (1, 2, 4, 8, 9, 16):
        insert_person(connection, user_id, visible=user_id != 4)
    connection.commit()
    times, told = Counter[int](), {}
    for point in range(16):
        drawn = on_store(endpoints, small, lambda people, at=point: people.some_visible((at + 0.5) / 16, 2, 5.0))
        times.update(ids(drawn.rows))
        told |= dict(zip(ids(drawn.rows), drawn.propensity.tolist(), strict=True))
    assert told == {user_id: times[user_id] / 16 for user_id in (1, 2, 8, 9, 16)}
    assert sum(told.values()) == 2.0


def test_nobody_at_all_gives_an_empty_draw(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    assert len(on_store(endpoints, small, lambda people: people.some_visible(0.5, 4, 5.0))) == 0


def test_a_database_that_cannot_be_reached_means_eligibility_is_unknown(endpoints: Endpoints, small: Settings) -> None:
    nowhere = replace(endpoints, database_url="postgresql://nobody@127.0.0.1:9/none")

    async def go() -> None:
        pool = postgres.open_pool(nowhere.database_url, small.postgres)
        pool.open()
        try:
            with pytest.raises(EligibilityUnknown):
                await PostgresPeople(pool, closed_breaker()).requester(1, 0.3)
        finally:
            await pool.close()

    asyncio.run(go())


def test_a_slow_database_means_eligibility_is_unknown_when_time_is_up(
    connection: psycopg.Connection[Any], endpoints: Endpoints, small: Settings
) -> None:
    insert_people(connection, 4)
    connection.execute("lock table duet.users in access exclusive mode")
    with pytest.raises(EligibilityUnknown):
        on_store(endpoints, small, lambda people: people.requester(1, 0.2))
    connection.rollback()
    row = on_store(endpoints, small, lambda people: people.requester(1, 5.0))
    assert row is not None
    assert row.excluded.dtype == np.int64
