import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from infra import redis as infra_redis
from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import BreakerSettings, Settings
from registry.release import Release
from serving.api.recommendation_models import Filters
from serving.cache.answer_cache import AnswerCache
from serving.recommend.answers import Answer
from serving.resilience.breaker import Breaker, BreakerState, Dependency
from tests.cached_towns import LATER, ask, ids
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import load_town, write_artifacts


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, n=100, release=release)


Worker = Callable[..., Awaitable[Answer]]
NOWHERE = "redis://127.0.0.1:1/0"


def with_workers(
    town: Town, redis_url: str, use: Callable[[Worker, Any], Awaitable[None]], breaker: Breaker | None = None
) -> None:
    """Run `use`, each of whose answers comes from a worker that has just begun and shares nothing but Redis."""
    project = f"t{uuid4().hex[:12]}"
    town.settings = town.settings.model_copy(
        update={"features": town.settings.features.model_copy(update={"project": project})}
    )
    guard = breaker or Breaker(Dependency.REDIS, BreakerSettings(), SystemClock(), serving_metrics())

    async def go() -> None:
        async with infra_redis.connect_async(redis_url, town.settings.redis) as client:

            async def answer(**request: Any) -> Answer:
                town.cache = AnswerCache(town.settings, town.clock, serving_metrics(), lambda: 0.5)
                town.cache.attach(client, guard)
                answered = await ask(town.recommender(), **request)
                await town.cache.settled()
                return answered

            await use(answer, client)

    asyncio.run(go())


def test_an_answer_made_by_one_worker_is_shown_by_another(town: Town, endpoints: Endpoints) -> None:
    async def use(answer: Worker, _: Any) -> None:
        first, second = await answer(), await answer()
        assert (first.cached, second.cached) == (False, True)
        assert second.items == first.items
        assert set(second.timings_ms) == {"cache", "safety", "total"}
        other = await answer(filters=Filters(age_min=20))
        assert not other.cached

    with_workers(town, endpoints.redis_url, use)


def test_a_list_in_redis_that_became_unsafe_never_shows_those_people(town: Town, endpoints: Endpoints) -> None:
    async def use(answer: Worker, _: Any) -> None:
        first = await answer()
        harmed = ids(first)[:3]
        town.people.hidden.add(harmed[0])
        town.people.rows.pop(harmed[1])
        town.people.update(harmed[2], LATER, age_min=90)
        second = await answer()
        assert second.cached
        assert not set(harmed) & set(ids(second))
        assert len(second.items) == 10

    with_workers(town, endpoints.redis_url, use)


def test_what_a_person_does_is_felt_on_every_worker(town: Town, endpoints: Endpoints) -> None:
    async def use(answer: Worker, _: Any) -> None:
        first = await answer()
        town.people.decided[1] = {ids(first)[0]}
        second, third = await answer(), await answer()
        assert (second.cached, third.cached) == (False, True)
        assert not {ids(first)[0]} & {*ids(second), *ids(third)}

    with_workers(town, endpoints.redis_url, use)


def test_kept_answers_are_json_that_ends_after_their_time(town: Town, endpoints: Endpoints) -> None:
    async def use(answer: Worker, client: Any) -> None:
        await answer()
        (name,) = [name async for name in client.scan_iter(match=f"{town.settings.features.project}:answer:*")]
        body = await client.get(name)
        assert body.startswith(b'{"format":2,')
        left_s = await client.pttl(name) / 1000
        assert 565 < left_s <= 570
        await client.set(name, body[:-20])
        assert not (await answer()).cached

    with_workers(town, endpoints.redis_url, use)


def test_a_redis_that_is_away_costs_nothing_once_its_breaker_is_open(town: Town) -> None:
    breaker = Breaker(Dependency.REDIS, BreakerSettings(min_calls=2, open_s=60.0), SystemClock(), serving_metrics())

    async def use(answer: Worker, _: Any) -> None:
        for _ in range(4):
            answered = await answer()
            assert (answered.level, answered.cached) == (1, False)
        assert breaker.state is BreakerState.OPEN

    with_workers(town, NOWHERE, use, breaker)


def test_two_releases_never_share_an_answer(town: Town, endpoints: Endpoints, release: Release) -> None:
    async def use(answer: Worker, _: Any) -> None:
        await answer()
        town.release = replace(release, versions=replace(release.versions, ranker=2))
        assert not (await answer()).cached

    with_workers(town, endpoints.redis_url, use)
