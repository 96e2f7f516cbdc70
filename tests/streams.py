"""Redis Streams with entries on them, and what stores them: in the process of a test, or as `duet stream` does."""

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis
from redis.asyncio import Redis

from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from infra.stream_settings import StreamSettings
from serving.people.stores import Stores
from serving.resilience.breaker import breakers
from serving.streams.entries import StreamEntry
from serving.streams.group import StreamGroup
from serving.streams.interaction_entries import InteractionEntries
from serving.streams.people_entries import PeopleEntries
from tests.on_pool import on_pool

ROOT = Path(__file__).parents[1]
EVENTS, PEOPLE = "duet:interactions", "duet:people"
LIKE = {"actor_id": 1, "target_id": 2, "kind": "like"}


@contextmanager
def consuming(settings: Settings, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have a consumer for the length of the block; `more` are variables without their prefix."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    environment = {
        **os.environ,
        "DUET_ENVIRONMENT": "test",
        "DUET_DATA_DIR": str(settings.data_dir),
        "DUET_DATABASE_URL": settings.database_url.get_secret_value(),
        "DUET_REDIS_URL": settings.redis_url.get_secret_value(),
        **{f"DUET_{name}": value for name, value in more.items()},
    }
    command = [sys.executable, "-m", "infra.cli", "stream"]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


class Desk:
    """Puts entries on the streams of the worker's Redis, and stores them round by round."""

    def __init__(
        self, connection: psycopg.Connection[Any], client: redis.Redis, endpoints: Endpoints, settings: Settings
    ) -> None:
        self.connection, self.client, self.endpoints, self.settings = connection, client, endpoints, settings

    def add(self, stream: str, *bodies: Any) -> list[str]:
        """Add entries as an app does, and return their ids."""
        pipeline = self.client.pipeline(transaction=False)
        for body in bodies:
            pipeline.xadd(stream, {"json": body if isinstance(body, str) else json.dumps(body)})
        return [entry.decode() for entry in pipeline.execute()]

    def use(self, use: Callable[["Readers"], Awaitable[Any]], **wanted: Any) -> Any:
        settings = self.settings.model_copy(update={"stream": StreamSettings(**wanted)})

        async def go(pool: Any) -> Any:
            async with Redis.from_url(self.endpoints.redis_url, socket_timeout=10) as client:
                readers = Readers(client, pool, settings)
                for group in (readers.events, readers.people):
                    await group.ensure()
                return await use(readers)

        return on_pool(self.endpoints.database_url, self.settings, go)

    def store(self, rounds: int = 3, **wanted: Any) -> None:
        """Let one process store what is there: people first."""

        async def go(readers: "Readers") -> None:
            for work in (readers.people_entries(), readers.event_entries("one")):
                for _ in range(rounds):
                    await work.round()

        self.use(go, **wanted)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        self.connection.rollback()
        return self.connection.execute(query).fetchall()  # type: ignore[arg-type]  # written in this file

    def run(self, statement: str) -> None:
        self.connection.execute(statement)  # type: ignore[arg-type]  # written in this file
        self.connection.commit()

    def dead(self, stream: str) -> list[dict[str, str]]:
        return [
            {name.decode(): value.decode() for name, value in fields.items()}
            for _, fields in self.client.xrange(f"{stream}:dead")
        ]

    def stored(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            EVENTS: self.rows("select event_id, occurred_at from duet.interactions"),
            PEOPLE: self.rows("select external_id, created_at from duet.users where user_id > 6 order by 1"),
        }

    def read_up_to_the_end(self) -> bool:
        last = {stream: self.client.xinfo_stream(stream)["last-generated-id"] for stream in (EVENTS, PEOPLE)}
        return all(self.client.xinfo_groups(stream)[0]["last-delivered-id"] == last[stream] for stream in last)

    def pending(self, stream: str) -> int:
        try:
            return int(self.client.xpending(stream, "duet")["pending"])
        except redis.ResponseError:  # there is no group yet
            return -1


class Readers:
    """What stores the entries of both streams, a round at a time."""

    def __init__(self, client: Any, pool: Any, settings: Settings) -> None:
        wanted = settings.stream
        self.settings, self.client = settings, client
        self.events, self.people = (StreamGroup(client, name, wanted) for name in (EVENTS, PEOPLE))
        self.stores = Stores.on(
            pool,
            breakers(settings.serving.breaker, SystemClock(), serving_metrics()),
            settings,
            clock=SystemClock(),
            metrics=serving_metrics(),
            changed=None,
        )
        # A look for new entries must not wait for some.
        for group in (self.events, self.people):
            group.fresh = _at_once(group.fresh)  # type: ignore[method-assign]

    def event_entries(self, consumer: str) -> InteractionEntries:
        wanted = self.settings.stream
        return InteractionEntries(
            self.events,
            self.people,
            self.stores,
            consumer=consumer,
            batch=wanted.batch,
            unknown_wait_s=wanted.unknown_wait_s,
            clock=SystemClock(),
        )

    def people_entries(self) -> PeopleEntries:
        return PeopleEntries(self.people, self.stores, batch=self.settings.stream.batch)


def _at_once(fresh: Callable[..., Awaitable[list[StreamEntry]]]) -> Callable[..., Awaitable[list[StreamEntry]]]:
    async def asked(consumer: str, most: int) -> list[StreamEntry]:
        return await fresh(consumer, most, block_ms=1)

    return asked
