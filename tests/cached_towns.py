# ruff: noqa: ARG002 fakes take what the real ones take
"""Towns that keep answers, and a Redis in memory that keeps them too."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from redis.exceptions import ConnectionError as RedisDown

from infra.metrics import serving_metrics
from serving.api.recommendation_models import RecommendationRequest
from serving.cache.answer_cache import AnswerCache
from serving.recommend.answers import Answer
from serving.recommend.recommender import Recommender
from tests.serving_fakes import Town
from tests.serving_world import START

LATER = START + timedelta(minutes=1)


def with_cache(town: Town) -> Town:
    town.cache = AnswerCache(town.settings, town.clock, serving_metrics(), lambda: 0.5)
    return town


async def ask(recommender: Recommender, user_id: int = 1, **request: Any) -> Answer:
    deadline = request.pop("deadline", None)
    request.setdefault("limit", 10)
    return await recommender.recommend(RecommendationRequest(user_id=user_id, **request), uuid4(), deadline=deadline)


def twice(town: Town, between: Callable[[], object] = lambda: None, **request: Any) -> list[Answer]:
    async def go() -> list[Answer]:
        recommender = town.recommender()
        first = await ask(recommender, **request)
        between()
        return [first, await ask(recommender, **request)]

    return asyncio.run(go())


def ids(answer: Answer) -> list[int]:
    return [item.user_id for item in answer.items]


HARMS: dict[str, Callable[[Town, int], object]] = {
    "hidden": lambda town, other: town.people.hidden.add(other),
    "deleted": lambda town, other: town.people.rows.pop(other),
    "unwilling": lambda town, other: town.people.update(other, LATER, seeking=["man"]),
    "too picky": lambda town, other: town.people.update(other, LATER, age_min=90),
    "unwanted": lambda town, other: town.people.update(other, LATER, gender="woman"),
}


@dataclass
class FakeRedis:
    """Redis as far as it is used; `down` refuses, `slow` never answers."""

    kept: dict[str, bytes] = field(default_factory=dict)
    down: bool = False
    slow: bool = False

    async def get(self, name: str) -> bytes | None:
        await self._wait()
        return self.kept.get(name)

    async def set(self, name: str, body: bytes, px: int) -> None:
        await self._wait()
        self.kept[name] = body

    async def _wait(self) -> None:
        if self.slow:
            await asyncio.sleep(10.0)
        if self.down:
            raise RedisDown


class TimeLimit:
    """A breaker that never opens."""

    async def call(self, operation: Callable[[], Awaitable[Any]], timeout_s: float) -> Any:
        async with asyncio.timeout(timeout_s):
            return await operation()


def two_workers(town: Town, redis: FakeRedis, between: Callable[[], object] = lambda: None) -> tuple[Answer, Answer]:
    async def go() -> tuple[Answer, Answer]:
        answers = []
        for _ in range(2):
            cache = with_cache(town).cache
            assert cache is not None
            cache.attach(redis, TimeLimit())  # type: ignore[arg-type]
            answers.append(await ask(town.recommender()))
            await cache.settled()
            between()
        return answers[0], answers[1]

    return asyncio.run(go())
