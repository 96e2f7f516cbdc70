"""The process that stores what is on the streams, from its start to a signal that ends it.

It waits for Redis and for Postgres for ever, and holds one batch of each stream meanwhile: nothing is acknowledged
before it is committed.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Final
from uuid import uuid4

import redis
import structlog

from infra import redis as infra_redis
from infra.clock import Clock
from infra.db import postgres
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from infra.sign_of_life import SIGNS, SignOfLife
from serving.endpoints import servers_of
from serving.errors import StorageUnavailable, StreamMoved
from serving.people.stores import Stores
from serving.resilience.background import Closing
from serving.resilience.breaker import breakers
from serving.streams.group import StreamGroup
from serving.streams.interaction_entries import InteractionEntries
from serving.streams.people_entries import IN_ORDER, PeopleEntries

PATIENCE_S: Final = 10.0
"""Longest time for a statement: nobody waits for the answer, and a batch that is late is stored all the same."""
CHECKOUT_S: Final = 1.0
REDIS_S: Final = 5.0
"""Longest wait for an answer of Redis; a look for new entries waits for a second of it."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
TRIM_S: Final = 60.0
_log = structlog.get_logger(__name__)


def redis_of(settings: Settings, endpoints: Endpoints) -> str:
    """Return the URL of the Redis with the streams."""
    own = settings.stream.url
    return endpoints.redis_url if own is None else own.get_secret_value()


async def consume(settings: Settings, clock: Clock) -> None:
    """Store what is on the streams until SIGTERM or SIGINT; what was begun is finished."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    servers, closing = ExitStack(), Closing()
    closing.add("servers", lambda: asyncio.to_thread(servers.close))
    try:
        endpoints = await asyncio.to_thread(servers_of, settings, servers)
        await _run(settings, endpoints, clock, closing, stopping)
    finally:
        await closing.close()


async def _run(
    settings: Settings, endpoints: Endpoints, clock: Clock, closing: Closing, stopping: asyncio.Event
) -> None:
    patient = settings.postgres.model_copy(update={"pool_size": 2, "max_overflow": 2, "checkout_timeout_s": CHECKOUT_S})
    pool = postgres.open_pool(
        endpoints.database_url, patient, application_name="duet-stream", statement_timeout_s=PATIENCE_S
    )
    closing.add("pool", pool.close)
    pool.open()
    client = infra_redis.connect_async(redis_of(settings, endpoints), settings.redis, socket_timeout_s=REDIS_S)
    closing.add("redis", client.aclose)
    metrics, wanted = serving_metrics(), settings.stream
    slow = settings.serving.model_copy(update={"timeout_s": 2 * PATIENCE_S})
    stores = Stores.on(
        pool,
        breakers(settings.serving.breaker, clock, metrics),
        settings.model_copy(update={"serving": slow}),
        clock=clock,
        metrics=metrics,
        changed=None,
        # The outbox is enough: serving looks into it each second.
        notify=None if settings.webhooks.url is None else lambda: None,
    )
    me = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    people = StreamGroup(client, wanted.people, wanted)
    interactions = StreamGroup(client, wanted.interactions, wanted)
    entries = InteractionEntries(
        interactions,
        people,
        stores,
        consumer=me,
        batch=wanted.batch,
        unknown_wait_s=wanted.unknown_wait_s,
        clock=clock,
    )
    signs = {name: SignOfLife(settings.data_dir, name) for name in SIGNS}
    loops = [
        StreamLoop(interactions, entries.round, signs["interactions"], clock, stopping),
        StreamLoop(people, PeopleEntries(people, stores, batch=wanted.batch).round, signs["people"], clock, stopping),
    ]
    _log.info("stream_begins", streams=[wanted.interactions, wanted.people], group=wanted.group, consumer=me)
    try:
        await asyncio.gather(*(loop.run() for loop in loops))
    finally:
        for sign in signs.values():
            sign.take_away()
    with suppress(redis.RedisError):
        await interactions.leave(me)
        await people.leave(IN_ORDER)
    _log.info("stream_ends")


class StreamLoop:
    """Reads one stream for ever, round by round; after a failure it waits, up to five seconds."""

    def __init__(
        self,
        group: StreamGroup,
        work: Callable[[], Awaitable[None]],
        sign: SignOfLife,
        clock: Clock,
        stopping: asyncio.Event,
    ) -> None:
        self._group, self._work, self._sign, self._clock, self._stopping = group, work, sign, clock, stopping
        self._trimmed_s = -TRIM_S

    async def run(self) -> None:
        """Return once `stopping` is set."""
        pause_s, known = FIRST_PAUSE_S, False
        while not self._stopping.is_set():
            self._sign.give()
            try:
                if not known:
                    await self._group.ensure()
                    known = True
                await self._work()
                await self._trim()
                pause_s = FIRST_PAUSE_S
            except StreamMoved:
                continue
            except Exception as error:  # noqa: BLE001 the entries are still there, and so is the other stream
                known = False  # a Redis that lost its data has no group any more
                self._note(error, pause_s)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _note(self, error: Exception, pause_s: float) -> None:
        stream = self._group.stream
        if isinstance(error, StorageUnavailable):
            _log.warning("stream_waits", stream=stream, why=error.message, again_in_s=pause_s)
        elif isinstance(error, redis.RedisError | OSError | TimeoutError):
            why = f"Redis: {type(error).__name__}: {error}"
            _log.warning("stream_waits", stream=stream, why=why, again_in_s=pause_s)
        else:
            _log.error("stream_fails", stream=stream, again_in_s=pause_s, exc_info=error)

    async def _trim(self) -> None:
        if self._clock.monotonic() - self._trimmed_s >= TRIM_S:
            self._trimmed_s = self._clock.monotonic()
            await self._group.trim(self._clock.now())
