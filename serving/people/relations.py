"""Who a person matched with, and whose likes wait for their answer: lists, newest first, a page at a time.

Whoever is hidden or separated from them is in neither, as in recommendations. Both follow `duet.pair_state`.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg import sql
from psycopg.types.numeric import Int8
from pydantic import AwareDatetime, Field

from feature_repo.kinds import DECISIONS, LIKES, SEPARATIONS, listed
from infra.clock import EARLIEST
from serving.api.models import MAX_LIMIT, AnswerModel, OfThisRequest, RequestModel
from serving.errors import LikesPrivate, UnknownUser
from serving.people.names import MAX_NUMBER, Name, Names, PersonId
from serving.people.statements import Storage
from serving.recommend.paging import not_a_cursor

MATCHES: Final = "/v1/people/{user_id}/matches"
LIKES_RECEIVED: Final = "/v1/people/{user_id}/likes"
MOST: Final = 5000
"""Of somebody's latest likes, given or received, how many are looked at."""
_FIRST_PAGE: Final = datetime(9999, 1, 1, tzinfo=UTC)


class PageQuery(RequestModel):
    """Which part of a list is wanted."""

    limit: int = Field(20, ge=1, le=MAX_LIMIT, description="Most people in the answer.")
    cursor: str | None = Field(None, max_length=64, description="`next` of the page before; absent for the first.")


class Match(AnswerModel):
    """Somebody who likes the person and is liked by them."""

    user_id: PersonId
    matched_at: AwareDatetime = Field(description="When the second of the two likes was.")


class Matches(AnswerModel):
    """A page of matches, newest first."""

    items: list[Match]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")
    request_id: OfThisRequest


class LikeReceived(AnswerModel):
    """Somebody whose like waits for an answer."""

    user_id: PersonId
    liked_at: AwareDatetime = Field(description="Since when they like the person.")


class LikesReceived(AnswerModel):
    """A page of likes without an answer, newest first."""

    items: list[LikeReceived]
    next: str | None = Field(description="`cursor` of the next page; null on the last.")
    request_id: OfThisRequest


def _rendered(text: LiteralString) -> bytes:
    return (
        sql.SQL(text)
        .format(likes=listed(LIKES), answers=listed((*DECISIONS, *SEPARATIONS)), most=sql.Literal(MOST))
        .as_bytes(None)
    )


_MATCHES: Final = _rendered("""
WITH latest AS (
    SELECT target_id AS other FROM duet.interactions WHERE actor_id = $1 AND kind IN ({likes})
    GROUP BY target_id ORDER BY max(occurred_at) DESC, target_id LIMIT {most}
), mutual AS (
    SELECT other FROM latest JOIN duet.users u ON u.user_id = other AND u.visible
    WHERE other IN (SELECT actor_id FROM duet.interactions WHERE target_id = $1 AND kind IN ({likes}))
)
SELECT other, state.matched_at FROM mutual, duet.pair_state($1, other, now()) AS state
WHERE (state.matched_at, other) < ($2, $3) ORDER BY state.matched_at DESC, other DESC LIMIT $4
""")
_LIKES: Final = _rendered("""
WITH latest AS (
    SELECT actor_id AS other FROM duet.interactions WHERE target_id = $1 AND kind IN ({likes})
      AND (actor_id NOT IN (SELECT target_id FROM duet.interactions WHERE actor_id = $1 AND kind IN ({answers}))
           OR actor_id IN (SELECT other FROM duet.undone($1) WHERE is_open))
    GROUP BY actor_id ORDER BY max(occurred_at) DESC, actor_id LIMIT {most}
)
SELECT other, state.liked_back_at FROM latest JOIN duet.users u ON u.user_id = other AND u.visible,
    duet.pair_state($1, other, now()) AS state
WHERE state.separated_at IS NULL AND (state.liked_back_at, other) < ($2, $3)
ORDER BY state.liked_back_at DESC, other DESC LIMIT $4
""")
_SEES: Final = b"""
SELECT u.visible AND state.separated_at IS NULL FROM duet.users u, duet.pair_state($1, $2, now()) AS state
WHERE u.user_id = $2
"""
_KNOWN: Final = b"SELECT user_id FROM duet.users WHERE user_id = $1"


class Relations:
    """Reads the lists; likes only where `pending_likes` says that they may be told."""

    def __init__(self, reads: Storage, *, pending_likes: bool) -> None:
        self._reads = reads
        self._names = Names(reads)
        self._pending_likes = pending_likes

    async def matches(self, name: Name, page: PageQuery, request_id: str) -> Matches:
        """Return a page of somebody's matches; raises UnknownUser, InvalidRequest and StorageUnavailable."""
        rows, following = await self._page(_MATCHES, name, page)
        items = [Match(user_id=other, matched_at=at) for other, at in rows]
        return Matches(items=items, next=following, request_id=request_id)

    async def likes(self, name: Name, page: PageQuery, request_id: str) -> LikesReceived:
        """Return a page of likes that wait for somebody's answer; raises LikesPrivate as well."""
        if not self._pending_likes:
            raise LikesPrivate(
                "Who likes somebody is told to nobody here: `DUET_RANKING__PENDING_LIKES=true` allows it, in lists and "
                "in recommendations."
            )
        rows, following = await self._page(_LIKES, name, page)
        items = [LikeReceived(user_id=other, liked_at=at) for other, at in rows]
        return LikesReceived(items=items, next=following, request_id=request_id)

    async def sees(self, user_id: int, other_id: int) -> bool:
        """Say whether somebody may see another: one who is there, not hidden, and not separated from them.

        Raises StorageUnavailable.
        """
        rows = await self._reads.rows(_SEES, [Int8(user_id), Int8(other_id)], "ask again.")
        return bool(rows and rows[0][0])

    async def _page(self, statement: bytes, name: Name, page: PageQuery) -> tuple[list[tuple[Any, ...]], str | None]:
        number = (await self._names.numbers([name])).get(name)
        if number is None:
            raise UnknownUser.named(name)
        at, other = (_FIRST_PAGE, 0) if page.cursor is None else _place(page.cursor)
        parameters = [Int8(number), at, Int8(other), Int8(page.limit + 1)]
        rows = await self._reads.rows(statement, parameters, "ask again.")
        if not rows and not await self._reads.rows(_KNOWN, [Int8(number)], "ask again."):
            raise UnknownUser.named(name)
        shown = rows[: page.limit]
        following = _cursor(shown[-1][1], shown[-1][0]) if len(rows) > page.limit else None
        if isinstance(name, str):
            names = await self._names.names([number for number, _ in shown])
            shown = [(names[number], at) for number, at in shown]
        return shown, following


def _cursor(at: datetime, other: int) -> str:
    micros = (at - EARLIEST) // timedelta(microseconds=1)
    return urlsafe_b64encode(f"{micros}.{other}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[datetime, int]:
    with suppress(ValueError, OverflowError):
        micros, other = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split(".")
        if 1 <= int(other) <= MAX_NUMBER:
            return EARLIEST + timedelta(microseconds=int(micros)), int(other)
    raise not_a_cursor()
