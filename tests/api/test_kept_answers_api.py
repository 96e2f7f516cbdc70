from typing import Any

import psycopg
import pytest

from tests.api.conftest import Served
from tests.serving_world import interact


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["user_id"] for item in answer["items"]]


def test_the_next_answer_is_cached_and_says_so(town: Served) -> None:
    first, second = town.recommend(21, limit=3), town.recommend(21, limit=3)
    assert (first["cached"], first["level"], first["degraded"]) == (False, 1, [])
    assert second["cached"]
    assert second["items"] == first["items"]
    assert second["request_id"] != first["request_id"]
    assert second["experiment"] is None
    text = town.client.get("/metrics").text
    assert 'duet_cache_reads_total{result="hit",tier="memory"}' in text
    assert "duet_cache_entries" in text


def test_an_interaction_is_felt_by_the_next_answer_though_it_was_cached(town: Served) -> None:
    first = ids(town.recommend(23, limit=3))
    assert ids(town.recommend(23, limit=3)) == first
    body = {"actor_id": 23, "target_id": first[0], "kind": "pass"}
    assert town.client.post("/v1/interactions", json=body).status_code == 201
    after = town.recommend(23, limit=3)
    assert not after["cached"]
    assert first[0] not in ids(after)


@pytest.mark.parametrize("harm", ["block", "hide", "delete", "prefer others"])
def test_whoever_may_not_be_shown_any_more_is_left_out_of_a_cached_list_at_once(
    town: Served, connection: psycopg.Connection[Any], harm: str
) -> None:
    town.recommend(25, limit=3)
    shown = ids(town.recommend(25, limit=3))
    if harm == "block":
        interact(connection, shown[0], 25, "block")
    elif harm == "hide":
        connection.execute("update duet.users set visible = false where user_id = %s", [shown[0]])
    elif harm == "delete":
        connection.execute("delete from duet.users where user_id = %s", [shown[0]])
    else:
        connection.execute("update duet.users set seeking = %s where user_id = %s", [["man"], shown[0]])
    connection.commit()
    after = ids(town.recommend(25, limit=3))
    assert shown[0] not in after
    assert len(after) == 3


def test_explanations_are_always_made_for_this_answer(town: Served) -> None:
    town.recommend(27)
    answer = town.recommend(27, explain=True)
    assert not answer["cached"]
    assert answer["items"][0]["explanation"]


@pytest.mark.parametrize("value", ["soon", "9", "10001", "-50", "1.5"])
def test_a_deadline_that_makes_no_sense_is_refused(town: Served, value: str) -> None:
    reply = town.client.post("/v1/recommendations", json={"user_id": 1}, headers={"X-Deadline-Ms": value})
    assert reply.status_code == 422
    assert reply.json()["error"]["details"][0]["field"] == "X-Deadline-Ms"


def test_the_clients_deadline_counts(town: Served, connection: psycopg.Connection[Any]) -> None:
    town.recommend(1)
    connection.execute("lock table duet.users in access exclusive mode")
    reply = town.client.post("/v1/recommendations", json={"user_id": 29}, headers={"X-Deadline-Ms": "100"})
    connection.rollback()
    assert (reply.status_code, reply.json()["level"], reply.json()["items"]) == (200, 4, [])
