"""Traces of whole answers, kept in memory instead of sent."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from infra.clock import SystemClock
from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.api import responses
from serving.api.middleware import ApiMiddleware
from serving.api.recommendation_models import RECOMMENDATIONS, RecommendationRequest
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import load_town, write_artifacts
from tests.spans import traced

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
STAGES = {"eligibility", "features", "filtering", "retrieval", "ranking", "reranking", "safety"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, release=release)


def asked(town: Town, user_id: int = 1) -> int:
    """Answer one call behind the border, as the service does; return its status."""
    recommender = town.recommender()

    async def call(scope: Any, receive: Any, send: Any) -> None:
        answer = await recommender.recommend(RecommendationRequest(user_id=user_id), uuid4())
        await responses.ok(answer)(scope, receive, send)

    middleware = ApiMiddleware(call, clock=SystemClock(), metrics=serving_metrics())

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(middleware, raise_app_exceptions=False)
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        async with httpx.AsyncClient(transport=transport, base_url="http://duet", headers=headers) as client:
            return await client.post(RECOMMENDATIONS)

    return asyncio.run(go()).status_code


def test_an_answer_is_traced_from_the_request_to_its_stages_in_the_trace_of_the_caller(town: Town) -> None:
    with traced(share=0.0) as spans:
        assert asked(town) == 200
    (request,) = spans.named(f"POST {RECOMMENDATIONS}")
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert dict(request.attributes or {})["http.response.status_code"] == 200
    assert spans.below(request) == STAGES
