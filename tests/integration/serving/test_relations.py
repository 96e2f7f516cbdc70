"""Likes that wait for an answer, read from a real database."""

from typing import Any

import psycopg
import pytest

from infra.endpoints import Endpoints
from infra.settings import Settings
from serving.errors import InvalidRequest, LikesPrivate
from serving.people.relations import LikesReceived, PageQuery, Relations
from serving.people.statements import Storage
from tests.on_pool import on_pool
from tests.serving_fakes import closed_breaker
from tests.serving_world import insert_people, interact

REQUEST_ID = "mine-7"


def likes(
    endpoints: Endpoints, settings: Settings, user_id: int, *, allowed: bool = True, **page: Any
) -> LikesReceived:
    async def use(pool: Any) -> LikesReceived:
        relations = Relations(Storage(pool, closed_breaker(), 2.0), pending_likes=allowed)
        return await relations.likes(user_id, PageQuery(**page), REQUEST_ID)

    return on_pool(endpoints.database_url, settings, use)


def test_likes_are_listed_until_they_are_answered_taken_back_or_separated(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings
) -> None:
    insert_people(connection, 20)
    for number, other in enumerate((2, 4, 6, 8, 10, 12, 14)):
        interact(connection, other, [16] * number + [1])  # each a minute later than the one before
    interact(connection, 1, 4)
    interact(connection, 1, 6, "block")
    interact(connection, 8, 1, "report")
    interact(connection, 14, [18] * 20 + [1], "pass")
    interact(connection, 16, 1)
    interact(connection, 16, [18] * 20 + [1], "unlike")
    interact(connection, 18, 1)
    interact(connection, 1, 18)  # answered, and the answer is taken back below
    interact(connection, 1, [20, 18], "unlike")
    connection.execute("update duet.users set visible = false where user_id = 12")
    connection.commit()
    first = likes(endpoints, settings, 1, limit=1)
    assert [like.user_id for like in first.items] == [10]
    second = likes(endpoints, settings, 1, limit=1, cursor=first.next)
    assert [like.user_id for like in second.items] == [18]
    third = likes(endpoints, settings, 1, limit=1, cursor=second.next)
    assert ([like.user_id for like in third.items], third.next) == ([2], None)


def test_they_are_private_unless_the_settings_say_otherwise(endpoints: Endpoints, settings: Settings) -> None:
    with pytest.raises(LikesPrivate):
        likes(endpoints, settings, 1, allowed=False)


@pytest.mark.parametrize("cursor", ["!", "é", "MQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OS4x", "MS4x" * 16, "MS4w"])
def test_a_cursor_that_is_none_of_ours_is_refused(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, cursor: str
) -> None:
    with pytest.raises(InvalidRequest, match="none of ours"):
        likes(endpoints, settings, 1, cursor=cursor)
