"""What only Postgres may say: who exists, who may be shown to whom, who is already decided.

Every statement is bounded by the pool's checkout wait, the statement timeout and the caller's deadline. A failure is
EligibilityUnknown: the caller then shows nobody.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, LiteralString, Protocol, Self, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.numeric import Int8

from feature_repo.kinds import DECISIONS, LIKES, NO_LONGER_LIKES, SEPARATIONS, Kind, listed
from infra.db.connection_pool import ConnectionPool
from infra.db.pooled import fetch_all
from infra.errors import NoConnection
from serving.errors import BreakerOpen, EligibilityUnknown
from serving.people.wanted import FITTING, SOME_VISIBLE, WANTED
from serving.reasons import Reason
from serving.resilience.batching import RequestBatcher
from serving.resilience.breaker import Breaker

Read = TypeVar("Read")
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

_PATIENCE: Final = 0.95

_PROFILE = sql.SQL("""
    u.user_id, u.birth_date, u.gender, u.seeking, u.age_min, u.age_max, u.latitude, u.longitude, u.max_distance_km,
    u.interests, coalesce(length(u.bio), 0) AS bio_length, u.created_at
""")
# Kinds are closed enumerations and part of the statements, so that every call has few parameters to send.
# Each asks about several people at once: what a request costs the server and psycopg is little beside what a call does.
# Of people who did not change, all that is asked stands in the index `users_standing`: their rows are spread over more
# memory than the server has. So no other column of `users` may be named where it is not needed; `OFFSET 0` keeps the
# planner from reading a row before it has found out that nobody wants it.
_REQUESTERS_TEXT = """
SELECT asked.place, found.* FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (user_id, place), LATERAL (
WITH mine AS MATERIALIZED (
    SELECT target_id, kind, occurred_at FROM duet.interactions WHERE actor_id = asked.user_id
), undone AS MATERIALIZED (
    SELECT * FROM duet.undone(asked.user_id)
), latest AS (
    SELECT DISTINCT ON (target_id) target_id, kind, occurred_at FROM mine
    WHERE kind IN ({decisions}) ORDER BY target_id, occurred_at DESC, kind IN ({passes}) DESC
), recent AS (
    SELECT * FROM latest ORDER BY occurred_at DESC LIMIT {fold_in}
), apart AS MATERIALIZED (
    SELECT actor_id FROM duet.interactions WHERE target_id = asked.user_id AND kind IN ({separations})
){waiting}
SELECT own.*, known.updated_at,
    (SELECT count(*) FROM mine) + (SELECT count(*) FROM apart),
    ARRAY(SELECT target_id FROM mine WHERE kind IN ({ending})
          AND target_id NOT IN (SELECT other FROM undone WHERE is_open)),
    ARRAY(SELECT actor_id FROM apart WHERE actor_id NOT IN (SELECT other FROM undone WHERE is_open)),
    ARRAY(SELECT target_id FROM recent WHERE kind IN ({likes})
          AND target_id NOT IN (SELECT other FROM undone WHERE NOT likes) ORDER BY occurred_at DESC),
    ARRAY(SELECT target_id FROM recent WHERE kind IN ({passes})){pending}
FROM duet.users known LEFT JOIN LATERAL (
    SELECT {profile}, u.attributes FROM duet.users u
    WHERE u.user_id = known.user_id AND ($2::timestamptz IS NULL OR known.updated_at > $2::timestamptz) OFFSET 0
) AS own ON true
WHERE known.user_id = asked.user_id
) AS found
"""
# Everybody who ever liked the requester and has no answer; `waits` where that like still stands.
_WAITING = """, waiting AS (
    SELECT actor_id, max(occurred_at) FILTER (WHERE kind IN ({likes})) AS liked_at,
        (array_agg(kind ORDER BY occurred_at DESC, kind IN ({no_longer}) DESC))[1] IN ({likes})
            AND actor_id NOT IN (SELECT other FROM undone WHERE NOT liked_back) AS waits
    FROM duet.interactions
    WHERE target_id = asked.user_id AND kind IN ({decisions}, {unlike})
      AND (actor_id NOT IN (SELECT target_id FROM mine WHERE kind IN ({ending}))
           OR actor_id IN (SELECT other FROM undone WHERE is_open))
    GROUP BY actor_id HAVING bool_or(kind IN ({likes})) ORDER BY liked_at DESC, actor_id LIMIT {most}
)"""
_PENDING = """,
    ARRAY(SELECT actor_id FROM waiting),
    ARRAY(SELECT actor_id FROM waiting WHERE waits ORDER BY liked_at DESC, actor_id)"""
# One round trip: who may still be shown, whose row is newer than the snapshot, and whether the requester changed.
# The candidates of all stand in one array, those of each from `low` to `high`.
_STANDINGS_TEXT = """
SELECT asked.place, found.*
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS asked (user_id, low, high, place), LATERAL (
WITH allowed AS MATERIALIZED (
    SELECT u.user_id, $5::timestamptz IS NULL OR u.updated_at > $5::timestamptz AS changed
    FROM duet.users u
    WHERE u.user_id = ANY(($4::bigint[])[asked.low:asked.high])
      AND u.visible{wanted}
      AND (u.user_id NOT IN (SELECT target_id FROM duet.interactions
                             WHERE actor_id = asked.user_id AND kind IN ({ending}))
           AND u.user_id NOT IN (SELECT actor_id FROM duet.interactions
                                 WHERE target_id = asked.user_id AND kind IN ({separations}))
           OR u.user_id IN (SELECT other FROM duet.undone(asked.user_id) WHERE is_open))
)
SELECT ARRAY(SELECT user_id FROM allowed ORDER BY user_id),
    ARRAY(SELECT user_id FROM allowed WHERE changed),
    (SELECT count(*) FROM duet.interactions WHERE actor_id = asked.user_id)
        + (SELECT count(*) FROM duet.interactions WHERE target_id = asked.user_id AND kind IN ({separations})),
    (SELECT updated_at FROM duet.users WHERE user_id = asked.user_id)
) AS found
"""
_PROFILES_TEXT = "SELECT {profile} FROM duet.users u WHERE u.user_id = ANY($1::bigint[]) AND u.visible"


def _rendered(text: LiteralString, **parts: sql.Composable) -> bytes:
    return (
        sql.SQL(text)
        .format(
            profile=_PROFILE,
            decisions=listed(DECISIONS),
            ending=listed((*DECISIONS, *SEPARATIONS)),
            likes=listed(LIKES),
            passes=listed([Kind.PASS]),
            no_longer=listed(NO_LONGER_LIKES),
            unlike=listed([Kind.UNLIKE]),
            separations=listed(SEPARATIONS),
            fold_in=sql.Literal(MAX_FOLD_IN),
            most=sql.Literal(MAX_PENDING),
            **parts,
        )
        .as_bytes(None)
    )


_NOTHING: Final = sql.SQL("")
_REQUESTERS: Final = {
    True: _rendered(
        _REQUESTERS_TEXT,
        waiting=sql.SQL(_rendered(_WAITING).decode()),
        pending=sql.SQL(_PENDING),
    ),
    False: _rendered(_REQUESTERS_TEXT, waiting=_NOTHING, pending=_NOTHING),
}
_STANDINGS: Final = {
    True: _rendered(_STANDINGS_TEXT, wanted=sql.SQL(WANTED)),
    False: _rendered(_STANDINGS_TEXT, wanted=_NOTHING),
}
_PROFILES: Final = _rendered(_PROFILES_TEXT)
_SOME_VISIBLE: Final = {
    True: _rendered(SOME_VISIBLE, fitting=sql.SQL(FITTING)),
    False: _rendered(SOME_VISIBLE, fitting=_NOTHING),
}
_N_PROFILE: Final = len(PROFILE_COLUMNS)


@dataclass(frozen=True)
class Rows:
    """Profile columns of n people by name: what `profile_vectors` takes."""

    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["user_id"])


@dataclass(frozen=True)
class Drawn:
    """People drawn at random, and float32[n]: how probable it was that each of them would be."""

    rows: Rows
    propensity: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


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

    `profile` and `attributes` are None where the caller has them already: they did not change after its `since`.
    `version` counts what they did and the separations against them; `updated_at` is when their own row last changed.
    `replicated` is a row of a replica, which may be a moment old.
    """

    profile: Rows | None
    attributes: dict[str, Any] | None
    excluded: Int64
    liked: Int64
    passed: Int64
    version: int
    updated_at: datetime
    pending: PendingLikes = field(default_factory=PendingLikes.unknown)
    replicated: bool = False


@dataclass(frozen=True)
class PairStanding:
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

    async def requester(
        self, user_id: int, timeout_s: float, *, since: datetime | None = None, fresh: bool = False
    ) -> RequesterRow | None:
        """Return the requester, or None when nobody has this id; `fresh` reads no replica.

        With `since`, a profile that did not change after it is left out.
        """
        ...

    async def standing(
        self,
        user_id: int,
        candidate_ids: Int64,
        *,
        since: datetime | None,
        interests: list[str] | None,
        attributes: str | None = None,
        timeout_s: float,
    ) -> PairStanding:
        """Return how requester and candidates stand now; everybody allowed counts as changed when `since` is None.

        With `interests`, nobody is allowed who has none of them; with `attributes`, as `wishes_of` says them, nobody
        whose own do not meet them.
        """
        ...

    async def some_visible(self, share: float, n: int, timeout_s: float, attributes: str | None = None) -> Drawn:
        """Return up to `n` visible people, from a place in the id range given by `share` in 0..1.

        Of those drawn, only whoever meets `attributes` is returned.
        """
        ...


class PostgresPeople:
    """The PeopleStore on a psycopg pool behind a breaker; what is asked for in one turn of the loop is read together.

    Likes that wait for an answer are read only with `pending_likes`.
    """

    def __init__(self, pool: ConnectionPool, breaker: Breaker, *, pending_likes: bool = False) -> None:
        self._pool = pool
        self._breaker = breaker
        self._requesters = RequestBatcher(partial(self._read_requesters, _REQUESTERS[pending_likes]))
        self._standings = RequestBatcher(self._read_standings)

    async def requester(
        self, user_id: int, timeout_s: float, *, since: datetime | None = None, fresh: bool = False
    ) -> RequesterRow | None:
        """Return the requester, or None when nobody has this id; this is one server, so `fresh` changes nothing."""
        del fresh
        row = await self._in_time(lambda: self._requesters.ask(since, user_id), timeout_s)
        if row is None:
            return None
        attributes, updated_at, version, decided, apart, liked, passed, *pending = row[_N_PROFILE:]
        return RequesterRow(
            profile=None if row[0] is None else columns_of([row]),
            attributes=attributes,
            excluded=np.unique(np.concatenate([decided, apart, [user_id]])),
            liked=liked,
            passed=passed,
            version=version,
            updated_at=updated_at,
            pending=PendingLikes(*pending) if pending else PendingLikes.unknown(),
        )

    async def standing(
        self,
        user_id: int,
        candidate_ids: Int64,
        *,
        since: datetime | None,
        interests: list[str] | None,
        attributes: str | None = None,
        timeout_s: float,
    ) -> PairStanding:
        """Return how requester and candidates stand now; everybody allowed counts as changed when `since` is None."""
        wanted = None if interests is None else tuple(interests), attributes
        allowed, changed, version, updated_at = await self._in_time(
            lambda: self._standings.ask((since, *wanted), (user_id, candidate_ids)), timeout_s
        )
        profiles = await self._fetch(_PROFILES, [changed], timeout_s) if len(changed) else []
        if len(profiles) < len(changed):
            # Somebody who was hidden between the two reads has no fresh profile to be judged by.
            gone = np.setdiff1d(changed, np.array([profile[0] for profile in profiles], dtype=np.int64))
            allowed = np.setdiff1d(allowed, gone)
        return PairStanding(allowed, columns_of(profiles), version, updated_at)

    async def some_visible(self, share: float, n: int, timeout_s: float, attributes: str | None = None) -> Drawn:
        """Return up to `n` visible people, from a place in the id range given by `share` in 0..1."""
        is_wanted = attributes is not None
        parameters = [share, Int8(n), *([attributes] if is_wanted else [])]
        rows = await self._fetch(_SOME_VISIBLE[is_wanted], parameters, timeout_s)
        return Drawn(columns_of(rows), np.array([row[_N_PROFILE] for row in rows], dtype=np.float32))

    async def _read_requesters(
        self, statement: bytes, since: datetime | None, user_ids: Sequence[int]
    ) -> list[tuple[Any, ...] | None]:
        found: list[tuple[Any, ...] | None] = [None] * len(user_ids)
        for place, *row in await fetch_all(self._pool, statement, [np.array(user_ids, dtype=np.int64), since]):
            found[place - 1] = tuple(row)
        return found

    async def _read_standings(
        self, kind: tuple[datetime | None, tuple[str, ...] | None, str | None], asked: Sequence[tuple[int, Int64]]
    ) -> list[tuple[Any, ...]]:
        since, interests, attributes = kind
        is_wanted = interests is not None or attributes is not None
        sizes = np.array([len(candidate_ids) for _, candidate_ids in asked], dtype=np.int64)
        high = np.cumsum(sizes)
        parameters = [
            np.array([user_id for user_id, _ in asked], dtype=np.int64),
            high - sizes + 1,
            high,
            np.concatenate([candidate_ids for _, candidate_ids in asked]),
            since,
            *([None if interests is None else list(interests), attributes] if is_wanted else []),
        ]
        found = await fetch_all(self._pool, _STANDINGS[is_wanted], parameters)
        rows = {place: tuple(row) for place, *row in found}
        return [rows[place] for place in range(1, len(asked) + 1)]

    async def _fetch(self, statement: bytes, parameters: list[Any], timeout_s: float) -> list[tuple[Any, ...]]:
        return await self._in_time(lambda: fetch_all(self._pool, statement, parameters), timeout_s)

    async def _in_time(self, read: Callable[[], Awaitable[Read]], timeout_s: float) -> Read:
        try:
            # A little less than the caller's time, so that it is the breaker that sees the server being late.
            return await self._breaker.call(read, timeout_s * _PATIENCE)
        except TimeoutError:
            raise EligibilityUnknown(
                Reason.ELIGIBILITY_UNAVAILABLE,
                "Postgres did not answer in time, so nobody can be shown safely.",
                late=True,
            ) from None
        except (psycopg.Error, NoConnection, OSError, BreakerOpen) as error:
            raise EligibilityUnknown(
                Reason.ELIGIBILITY_UNAVAILABLE, "Postgres cannot be read, so nobody can be shown safely."
            ) from error


def columns_of(rows: Sequence[Sequence[Any]]) -> Rows:
    """Turn rows that begin with the columns of a profile into columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * _N_PROFILE
    return Rows({name: list(column) for name, column in zip(PROFILE_COLUMNS, columns, strict=False)})
