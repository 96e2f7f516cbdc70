"""What only Postgres may say: who exists, who may be shown to whom, who is already decided.

Every statement is bounded by the pool's checkout wait, the statement timeout and the caller's deadline. A failure is
EligibilityUnknown: the caller then shows nobody.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from serving.errors import EligibilityUnknown
from serving.reasons import DECISIONS, LIKES, SEPARATIONS, Reason

Int64 = NDArray[np.int64]
PROFILE_COLUMNS = (
    "user_id",
    "birth_date",
    "gender",
    "seeking",
    "age_min",
    "age_max",
    "latitude",
    "longitude",
    "max_distance_km",
    "interests",
    "bio_length",
    "created_at",
)
MAX_FOLD_IN = 1000
"""Most recent decisions that a fold-in takes into account."""
MAX_PENDING = 5000
"""Most recent likes without an answer that are read of one person."""

_PROFILE = sql.SQL("""
    u.user_id, u.birth_date, u.gender, u.seeking, u.age_min, u.age_max, u.latitude, u.longitude, u.max_distance_km,
    u.interests, coalesce(length(u.bio), 0) AS bio_length, u.created_at
""")
_REQUESTER_TEXT = """
WITH mine AS MATERIALIZED (
    SELECT target_id, kind, occurred_at FROM duet.interactions WHERE actor_id = %(user_id)s
), latest AS (
    SELECT DISTINCT ON (target_id) target_id, kind, occurred_at FROM mine
    WHERE kind = ANY(%(decisions)s) ORDER BY target_id, occurred_at DESC
), recent AS (
    SELECT * FROM latest ORDER BY occurred_at DESC LIMIT %(fold_in)s
), apart AS MATERIALIZED (
    SELECT actor_id FROM duet.interactions WHERE target_id = %(user_id)s AND kind IN ('block', 'report')
){waiting}
SELECT {profile}, u.attributes, u.updated_at,{pending}
    (SELECT count(*) FROM mine) + (SELECT count(*) FROM apart) AS version,
    ARRAY(SELECT DISTINCT target_id FROM mine WHERE kind = ANY(%(ending)s)) AS decided,
    ARRAY(SELECT actor_id FROM apart) AS separated_by,
    ARRAY(SELECT target_id FROM recent WHERE kind = ANY(%(likes)s) ORDER BY occurred_at DESC) AS liked,
    ARRAY(SELECT target_id FROM recent WHERE kind = 'pass') AS passed
FROM duet.users u WHERE u.user_id = %(user_id)s
"""
# Everybody who ever liked the requester and has no answer; `waits` unless they changed their mind since.
_WAITING = sql.SQL(""", waiting AS (
    SELECT actor_id, max(occurred_at) FILTER (WHERE kind = ANY(%(likes)s)) AS liked_at,
        (array_agg(kind ORDER BY occurred_at DESC))[1] = ANY(%(likes)s) AS waits
    FROM duet.interactions
    WHERE target_id = %(user_id)s AND kind = ANY(%(decisions)s)
      AND actor_id NOT IN (SELECT target_id FROM mine WHERE kind = ANY(%(ending)s))
    GROUP BY actor_id HAVING bool_or(kind = ANY(%(likes)s)) ORDER BY liked_at DESC, actor_id LIMIT %(pending)s
)""")
_PENDING = sql.SQL("""
    ARRAY(SELECT actor_id FROM waiting) AS liked_by,
    ARRAY(SELECT actor_id FROM waiting WHERE waits ORDER BY liked_at DESC, actor_id) AS waiting,""")
_NOTHING = sql.SQL("")
_REQUESTER = {
    True: sql.SQL(_REQUESTER_TEXT).format(profile=_PROFILE, waiting=_WAITING, pending=_PENDING),
    False: sql.SQL(_REQUESTER_TEXT).format(profile=_PROFILE, waiting=_NOTHING, pending=_NOTHING),
}
# One round trip: who may still be shown, whose row is newer than the snapshot, and whether the requester changed.
_STANDING = b"""
WITH allowed AS MATERIALIZED (
    SELECT u.user_id, %(since)s::timestamptz IS NULL OR u.updated_at > %(since)s::timestamptz AS changed
    FROM duet.users u
    WHERE u.user_id = ANY(%(ids)s) AND u.visible
      AND (%(interests)s::text[] IS NULL OR u.interests && %(interests)s::text[])
      AND NOT EXISTS (SELECT 1 FROM duet.interactions i
                      WHERE i.actor_id = %(user_id)s AND i.target_id = u.user_id AND i.kind = ANY(%(ending)s))
      AND NOT EXISTS (SELECT 1 FROM duet.interactions i
                      WHERE i.target_id = %(user_id)s AND i.actor_id = u.user_id AND i.kind IN ('block', 'report'))
)
SELECT ARRAY(SELECT user_id FROM allowed ORDER BY user_id) AS allowed,
    ARRAY(SELECT user_id FROM allowed WHERE changed) AS changed,
    (SELECT count(*) FROM duet.interactions WHERE actor_id = %(user_id)s)
        + (SELECT count(*) FROM duet.interactions
           WHERE target_id = %(user_id)s AND kind IN ('block', 'report')) AS version,
    (SELECT updated_at FROM duet.users WHERE user_id = %(user_id)s) AS updated_at
"""
_PROFILES = sql.SQL("SELECT {profile} FROM duet.users u WHERE u.user_id = ANY(%(ids)s) AND u.visible").format(
    profile=_PROFILE
)
# A random point of the id range and the visible people after it, wrapping around: no sequential scan at any size.
_SOME_VISIBLE = sql.SQL("""
WITH span AS (SELECT min(user_id) AS low, max(user_id) AS high FROM duet.users),
start AS (SELECT low + floor(%(share)s::float8 * (high - low + 1))::bigint AS id FROM span)
(SELECT {profile} FROM duet.users u, start WHERE u.visible AND u.user_id >= start.id ORDER BY u.user_id LIMIT %(n)s)
UNION ALL
(SELECT {profile} FROM duet.users u, start WHERE u.visible AND u.user_id < start.id ORDER BY u.user_id LIMIT %(n)s)
LIMIT %(n)s
""").format(profile=_PROFILE)
_ENDING = [kind.value for kind in (*DECISIONS, *SEPARATIONS)]
_KINDS = {
    "decisions": [kind.value for kind in DECISIONS],
    "ending": _ENDING,
    "likes": [kind.value for kind in LIKES],
}


@dataclass(frozen=True)
class Rows:
    """Profile columns of n people by name: what `profile_vectors` takes."""

    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["user_id"])


@dataclass(frozen=True)
class PendingLikes:
    """Likes of the requester that wait for an answer, ids int64, latest first; empty where they must not be known.

    `liked_by` ever liked the requester, `waiting` did so in their latest decision; neither has an answer.
    """

    liked_by: Int64
    waiting: Int64

    @classmethod
    def unknown(cls) -> Self:
        """Return what is known where nothing may be."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class RequesterRow:
    """The requester as Postgres knows them this instant; ids int64.

    `version` counts what they did and the separations against them; `updated_at` is when their own row last changed.
    """

    profile: Rows
    attributes: dict[str, Any]
    excluded: Int64
    liked: Int64
    passed: Int64
    version: int
    updated_at: datetime
    pending: PendingLikes = field(default_factory=PendingLikes.unknown)


@dataclass(frozen=True)
class Standing:
    """What Postgres says this instant of a requester and of people about to be shown.

    `allowed` int64 ascending: those asked about who are visible, undecided by the requester and not separated from
    them. `changed`: fresh profiles of the allowed whose row changed after `since`. `version` and `updated_at` are those
    of RequesterRow; `updated_at` is None when the requester is gone.
    """

    allowed: Int64
    changed: Rows
    version: int
    updated_at: datetime | None


class PeopleStore(Protocol):
    """Answers about people that must be fresh; every method raises EligibilityUnknown when it cannot answer."""

    async def requester(self, user_id: int, timeout_s: float) -> RequesterRow | None:
        """Return the requester, or None when nobody has this id."""
        ...

    async def standing(
        self,
        user_id: int,
        candidate_ids: Int64,
        *,
        since: datetime | None,
        interests: list[str] | None,
        timeout_s: float,
    ) -> Standing:
        """Return how requester and candidates stand now; everybody allowed counts as changed when `since` is None.

        With `interests`, nobody is allowed who has none of them.
        """
        ...

    async def some_visible(self, share: float, n: int, timeout_s: float) -> Rows:
        """Return up to `n` visible people, from a place in the id range given by `share` in 0..1."""
        ...


class PostgresPeople:
    """The PeopleStore on a psycopg pool; likes that wait for an answer are read only with `pending_likes`."""

    def __init__(self, pool: AsyncConnectionPool[Any], *, pending_likes: bool = False) -> None:
        self._pool = pool
        self._pending_likes = pending_likes

    async def requester(self, user_id: int, timeout_s: float) -> RequesterRow | None:
        """Return the requester, or None when nobody has this id."""
        parameters = {"user_id": user_id, "fold_in": MAX_FOLD_IN, "pending": MAX_PENDING, **_KINDS}
        rows = await self._fetch(_REQUESTER[self._pending_likes], parameters, timeout_s)
        if not rows:
            return None
        row = rows[0]
        excluded = np.unique(np.array([*row["decided"], *row["separated_by"], user_id], dtype=np.int64))
        return RequesterRow(
            profile=columns_of(rows),
            attributes=row["attributes"],
            excluded=excluded,
            liked=np.array(row["liked"], dtype=np.int64),
            passed=np.array(row["passed"], dtype=np.int64),
            version=row["version"],
            updated_at=row["updated_at"],
            pending=PendingLikes(np.array(row["liked_by"], dtype=np.int64), np.array(row["waiting"], dtype=np.int64))
            if self._pending_likes
            else PendingLikes.unknown(),
        )

    async def standing(
        self,
        user_id: int,
        candidate_ids: Int64,
        *,
        since: datetime | None,
        interests: list[str] | None,
        timeout_s: float,
    ) -> Standing:
        """Return how requester and candidates stand now; everybody allowed counts as changed when `since` is None."""
        parameters = {
            "user_id": user_id,
            "ids": candidate_ids.tolist(),
            "since": since,
            "interests": interests,
            **_KINDS,
        }
        row = (await self._fetch(_STANDING, parameters, timeout_s))[0]
        changed = await self._fetch(_PROFILES, {"ids": row["changed"]}, timeout_s) if row["changed"] else []
        # Somebody who was hidden between the two reads has no fresh profile to be judged by.
        gone = set(row["changed"]).difference(profile["user_id"] for profile in changed)
        allowed = np.array([user_id for user_id in row["allowed"] if user_id not in gone], dtype=np.int64)
        return Standing(allowed, columns_of(changed), row["version"], row["updated_at"])

    async def some_visible(self, share: float, n: int, timeout_s: float) -> Rows:
        """Return up to `n` visible people, from a place in the id range given by `share` in 0..1."""
        return columns_of(await self._fetch(_SOME_VISIBLE, {"share": share, "n": n}, timeout_s))

    async def _fetch(
        self, statement: sql.Composed | bytes, parameters: dict[str, Any], timeout_s: float
    ) -> list[dict[str, Any]]:
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                await cursor.execute(statement, parameters)
                rows: list[dict[str, Any]] = await cursor.fetchall()
        except TimeoutError:
            raise EligibilityUnknown(
                Reason.ELIGIBILITY_UNAVAILABLE, "Postgres did not answer in time, so nobody can be shown safely."
            ) from None
        except (psycopg.Error, PoolTimeout, TooManyRequests, OSError) as error:
            raise EligibilityUnknown(
                Reason.ELIGIBILITY_UNAVAILABLE, "Postgres cannot be read, so nobody can be shown safely."
            ) from error
        return rows


def columns_of(rows: Sequence[dict[str, Any]]) -> Rows:
    """Turn rows into columns."""
    return Rows({name: [row[name] for row in rows] for name in PROFILE_COLUMNS})
