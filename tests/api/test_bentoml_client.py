"""BentoML's own clients, which read the schema of the service and know nothing of Duet."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from bentoml import AsyncHTTPClient, SyncHTTPClient
from bentoml.exceptions import BentoMLException, NotFound

from tests.api.conftest import Served


@pytest.fixture
def client(town: Served) -> Iterator[Any]:
    with SyncHTTPClient(town.url) as client:
        yield client
        client._temp_dir.cleanup()  # its own `close` leaves the folder to the garbage collector, which warns


def of_one_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what belongs to one request alone."""
    return {name: value for name, value in answer.items() if name not in {"request_id", "timings_ms", "cached"}}


def test_both_calls_take_keywords_and_answer_what_http_answers(client: Any, town: Served) -> None:
    asked = {"limit": 3, "filters": {"age_min": 20}, "explain": True}
    answer = client.recommendations(user_id=1, **asked)
    assert of_one_answer(answer) == of_one_answer(town.recommend(1, **asked))
    event = {"event_id": str(uuid4()), "actor_id": 1, "target_id": 40, "kind": "like"}
    stored = client.interactions(**event)
    assert (stored["event_id"], stored["status"], stored["matched"]) == (event["event_id"], "stored", False)
    assert client.interactions(**event)["status"] == "known"


def test_the_asynchronous_client_answers_the_same(town: Served) -> None:
    async def ask() -> list[dict[str, Any]]:
        async with AsyncHTTPClient(town.url) as client:
            answers = [
                await client.recommendations(user_id=1, limit=3),
                await client.interactions(actor_id=1, target_id=38, kind="pass"),
            ]
            client._temp_dir.cleanup()
            return answers

    answer, stored = asyncio.run(ask())
    assert len(answer["items"]) == 3
    assert stored["status"] == "stored"


def test_what_is_refused_is_an_exception_with_the_sentence_of_the_service(client: Any) -> None:
    with pytest.raises(NotFound, match="Nobody has the id 999") as unknown:
        client.recommendations(user_id=999)
    assert unknown.value.error_code == 404
    with pytest.raises(BentoMLException, match=r"`limit`: Input should be less than or equal to 100") as invalid:
        client.recommendations(user_id=1, limit=101)
    assert invalid.value.error_code == 422
    with pytest.raises(BentoMLException, match="must be somebody else than `actor_id`"):
        client.interactions(actor_id=1, target_id=1, kind="like")


def test_the_client_knows_the_arguments_before_it_asks(client: Any) -> None:
    with pytest.raises(TypeError, match=r"Missing required arguments.*user_id"):
        client.recommendations(limit=3)
    with pytest.raises(TypeError, match=r"Arguments not found.*limits"):
        client.recommendations(user_id=1, limits=3)
