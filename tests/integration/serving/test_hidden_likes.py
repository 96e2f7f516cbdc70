import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest

from infra.db import postgres
from infra.endpoints import Endpoints
from infra.metrics import serving_metrics
from infra.settings import Settings
from serving.api.recommendation_models import RecommendationRequest
from serving.people.people_store import PostgresPeople
from serving.reasons import CandidateSource
from serving.recommend.answers import Shown
from serving.recommend.levels import ladder
from serving.recommend.recommender import Recommender
from serving.recommend.serving_state import ServingState
from serving.snapshots import population_source
from tests.clocks import FixedClock
from tests.serving_fakes import MemoryFeatures, closed_breaker
from tests.serving_world import insert_people, interact, load_town, write_artifacts

LEVELS = {1: True, 2: False}


class Evening:
    """Answers from Postgres, with a snapshot read anew for each, as a process that starts now would read it."""

    def __init__(
        self, connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, clock: FixedClock, at: Path
    ) -> None:
        self.release = load_town(write_artifacts(at, insert_people(connection, 40)))
        self.connection, self.endpoints, self.settings, self.clock = connection, endpoints, settings, clock

    def ask(self, *, pending_likes: bool, level: int = 1) -> list[Shown]:
        settings = self.settings.model_copy(
            update={
                "serving": self.settings.serving.model_copy(update={"deadline_ms": 5000}),
                # On a busy machine the first connection of a new pool takes longer than a request would wait.
                "postgres": self.settings.postgres.model_copy(update={"checkout_timeout_s": 5.0}),
                "ranking": self.settings.ranking.model_copy(update={"pending_likes": pending_likes}),
            }
        )
        self.connection.rollback()
        snapshot = population_source.load(self.connection, None)
        world = ServingState(
            self.release if LEVELS[level] else None, None, snapshot.population, snapshot.recent_likes, snapshot.slots
        )

        async def go() -> list[Shown]:
            async with postgres.open_pool(self.endpoints.database_url, settings.postgres) as pool:
                people = PostgresPeople(pool, closed_breaker(), pending_likes=settings.ranking.pending_likes)
                recommender = Recommender(
                    settings=settings,
                    people=people,
                    features=MemoryFeatures(),
                    world=lambda: world,
                    ladder=ladder(settings, people, np.random.default_rng(3)),
                    log_impressions=list[Any]().extend,
                    log_answers=list[Any]().extend,
                    metrics=serving_metrics(),
                    clock=self.clock,
                )
                answer = await recommender.recommend(RecommendationRequest(user_id=1, limit=100), UUID(int=1))
                assert answer.level == level
                return answer.items

        return asyncio.run(go())


@pytest.fixture
def evening(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings, clock: FixedClock, tmp_path: Path
) -> Evening:
    evening = Evening(connection, endpoints, settings, clock, tmp_path / "release")
    interact(connection, 4, [9, 7], "like")
    interact(connection, 1, [12, 14], "like")
    return evening


@pytest.mark.parametrize("level", LEVELS)
def test_answers_are_the_same_whether_or_not_likes_wait(evening: Evening, level: int) -> None:
    before = evening.ask(pending_likes=False, level=level)
    for admirer in (4, 6, 38):
        interact(evening.connection, admirer, 1, "superlike")
    assert {4, 6, 38} <= {item.user_id for item in before}
    assert evening.ask(pending_likes=False, level=level) == before


@pytest.mark.parametrize("level", LEVELS)
def test_where_the_product_says_so_whoever_waits_is_shown_as_such(evening: Evening, level: int) -> None:
    for admirer in (3, 4, 6, 12):  # 3 is a woman, and 12 has an answer already
        interact(evening.connection, admirer, 1, "like")
    interact(evening.connection, 6, [9, 1], "pass")
    shown = evening.ask(pending_likes=True, level=level)
    assert [item.user_id for item in shown if CandidateSource.LIKED_YOU in item.sources] == [4]
    if level == 1:
        assert [item.user_id for item in shown if item.p_liked_back == 1.0] == [4]
