"""Serving with a ranker's service that does not answer, or says something else: it ranks itself, and as well."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest

from infra.embedded.ports import free_port
from infra.metrics import serving_metrics
from infra.settings import BreakerSettings, Settings
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.errors import RankerServiceFailed
from serving.recommend.levels import ladder
from serving.recommend.remote_ranker import RemoteRanker, _values
from serving.recommend.stages.ranking import predict_here
from serving.resilience.breaker import Breaker, BreakerState, Dependency
from tests.clocks import FixedClock
from tests.serving_fakes import make_town
from tests.serving_world import load_town, write_artifacts
from tests.webhook import Webhook, listening


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return load_town(write_artifacts(tmp_path / "town", range(1, 41)))


@pytest.fixture
def breaker(clock: FixedClock) -> Breaker:
    return Breaker(Dependency.RANKER_SERVICE, BreakerSettings(min_calls=3, open_s=60.0), clock, serving_metrics())


def remote(url: str, breaker: Breaker, timeout_s: float = 5.0) -> RemoteRanker:
    return RemoteRanker(url, timeout_s=timeout_s, breaker=breaker, metrics=serving_metrics())


def test_a_dead_service_is_given_up_after_a_few_calls_and_answers_are_as_good(
    settings: Settings, clock: FixedClock, release: Release, breaker: Breaker
) -> None:
    town = make_town(settings, clock, release=release)
    ranker = remote(f"http://127.0.0.1:{free_port()}", breaker)

    async def answers() -> list[list[tuple[int, float | None]]]:
        found = []
        for predict in (predict_here, *[ranker.predict] * 4):
            recommender = town.recommender()
            recommender._ladder = ladder(town.settings, town.people, np.random.default_rng(3), predict=predict)
            answer = await recommender.recommend(RecommendationRequest(user_id=1, limit=5), uuid4())
            assert answer.level == 1
            found.append([(item.user_id, item.p_like) for item in answer.items])
        await ranker.aclose()
        return found

    here, *elsewhere = asyncio.run(answers())
    assert elsewhere == [here] * 4
    assert breaker.state is BreakerState.OPEN


@pytest.fixture
def hook(request: pytest.FixtureRequest) -> Iterator[Webhook]:
    with listening(request.param) as hook:
        yield hook


@pytest.mark.parametrize("hook", [200, 500, None], indirect=True)
def test_what_answers_no_probabilities_or_nothing_in_time_counts_as_failed(
    hook: Webhook, release: Release, breaker: Breaker
) -> None:
    rows = np.linspace(0, 4, 6 * len(release.ranker.offered_names), dtype=np.float32).reshape(6, -1)

    async def predicted() -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
        ranker = remote(hook.url, breaker, timeout_s=0.5)
        found = [(await ranker.predict(release, [(release.ranker, rows)], 10.0))[0] for _ in range(3)]
        await ranker.aclose()
        return found

    expected = release.ranker.predict(rows)
    assert all((values == expected).all() for values in asyncio.run(predicted()))
    assert breaker.state is BreakerState.OPEN
    (sent,) = hook.received[0]["matrices"]
    assert (sent["release"], sent["model"]) == ("e1-i1-r1", "like")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, "overloaded", "answered 503: overloaded"),
        (200, "[", "sent no probabilities"),
        (200, '[{"values": null, "problem": "Nobody knows it."}]', "cannot predict: Nobody knows it."),
        (200, '[{"values": [0.5]}]', "another number of probabilities than rows"),
        (200, '[{"values": [0.5, NaN]}]', "no probabilities"),
        (200, '[{"values": [0.5, 1.5]}]', "no probabilities"),
    ],
)
def test_only_as_many_probabilities_as_rows_are_taken(status: int, body: str, said: str) -> None:
    with pytest.raises(RankerServiceFailed, match=said):
        _values(httpx.Response(status, text=body), [2])
