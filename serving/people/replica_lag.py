"""How far the read replica is behind, measured all the time and never guessed.

What counts is a moment of the past up to which everything that was committed is known to be in the replica. Time that
passes without a new measurement makes it older, so a replica that goes silent stops being near enough by itself.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, NamedTuple

import psycopg
from prometheus_client import Gauge

from infra.clock import Clock
from serving.resilience.health_checker import OneConnection

WITHIN_S: Final = 0.5
_EVERY_S: Final = 0.5
_LOOKS: Final = 4
"""Measurements in the time that a replica may be behind, so that one of them may be late."""
_REMEMBERED: Final = 120
_PRIMARY: Final = b"SELECT (pg_current_wal_lsn() - '0/0')::bigint, clock_timestamp()"
_REPLICA: Final = b"""
SELECT pg_is_in_recovery(), (pg_last_wal_replay_lsn() - '0/0')::bigint, pg_last_xact_replay_timestamp()
"""


class Written(NamedTuple):
    """Where the primary is: its position in the log, bytes, and the time by its own clock."""

    position: int
    at: datetime


class Replayed(NamedTuple):
    """Where the replica is: what it has replayed, bytes, and when the last of it was committed, by the primary."""

    in_recovery: bool
    position: int | None
    committed_at: datetime | None


class ReplicaLag:
    """Asks both servers again and again; `written` and `replayed` raise when theirs does not answer."""

    def __init__(
        self,
        written: Callable[[], Awaitable[Written]],
        replayed: Callable[[], Awaitable[Replayed]],
        *,
        max_lag_s: float,
        clock: Clock,
        gauge: Gauge,
    ) -> None:
        self._written = written
        self._replayed = replayed
        self._max_lag_s = max_lag_s
        self._clock = clock
        self._gauge = gauge
        self._began_s = clock.monotonic()
        self._history: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._known_s: float | None = None
        self._last_known_s = self._began_s
        self.seconds: float | None = None
        self.problem: str | None = "It was not asked yet."

    def near(self) -> bool:
        """Return whether everything committed longer ago than the settings allow is surely there."""
        return self._known_s is not None and self._clock.monotonic() - self._known_s < self._max_lag_s

    async def run(self) -> None:
        """Measure for ever, several times in the lag that is allowed."""
        pause_s = min(_EVERY_S, self._max_lag_s / _LOOKS)
        while True:
            await self.measure()
            await asyncio.sleep(pause_s)

    async def measure(self) -> None:
        """Ask both servers once; whatever they do not say is not known."""
        asked_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(WITHIN_S):
                written = await self._written()
                replayed = await self._replayed()
        except TimeoutError:
            self._forget(f"No answer within {WITHIN_S} s.")
        except (psycopg.Error, OSError) as error:
            self._forget(type(error).__name__)
        else:
            self._learn(asked_s, written, replayed)
        self._gauge.set(self._clock.monotonic() - self._last_known_s if self.seconds is None else self.seconds)

    def _learn(self, asked_s: float, written: Written, replayed: Replayed) -> None:
        if not replayed.in_recovery:
            # Promoted, or never a replica: it goes its own way, whatever its log says.
            self._forget("It is no replica: it is not in recovery.")
            return
        self._history.append((written.position, asked_s))
        known = [] if replayed.position is None else [at for place, at in self._history if place <= replayed.position]
        if replayed.committed_at is not None:
            # Both times are the primary's. Old on a primary where little is committed: then the positions know better.
            known.append(asked_s - max((written.at - replayed.committed_at).total_seconds(), 0.0))
        if not known:
            self._forget("It does not say what it has replayed.")
            return
        self._known_s = self._last_known_s = max(known)
        self.seconds = round(asked_s - self._known_s, 3)
        self.problem = None

    def _forget(self, problem: str) -> None:
        self._known_s, self.seconds, self.problem = None, None, problem


def written_by(connection: OneConnection) -> Callable[[], Awaitable[Written]]:
    """Ask a primary where it is."""

    async def ask() -> Written:
        return Written(*await connection.row(_PRIMARY))

    return ask


def replayed_by(connection: OneConnection) -> Callable[[], Awaitable[Replayed]]:
    """Ask a replica where it is."""

    async def ask() -> Replayed:
        return Replayed(*await connection.row(_REPLICA))

    return ask
