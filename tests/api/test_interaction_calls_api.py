"""Many interactions at once, and the list of matches that comes of them."""

from typing import Any
from uuid import uuid4

import psycopg

from tests.api.conftest import Served
from tests.serving_world import interact


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["user_id"] for item in answer["items"]]


def send(town: Served, events: list[Any]) -> list[dict[str, Any]]:
    answer = town.client.post("/v1/interactions:batch", json={"interactions": events})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def event(actor: int, target: int, kind: str = "like", **more: Any) -> dict[str, Any]:
    return {"actor_id": actor, "target_id": target, "kind": kind, **more}


def test_each_event_of_a_batch_is_stored_once_or_refused_alone(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    interact(connection, 6, 1)
    used = str(uuid4())
    events = [
        event(1, 2, event_id=used),
        event(1, 4, "pass"),
        event(1, 6),
        event(1, 1),
        event(1, 999),
        event(1, 8, occurred_at="2999-01-01T00:00:00Z"),
        event(1, 10, "love"),
        event(3, 4, event_id=used),
    ]
    results = send(town, events)
    assert [result["index"] for result in results] == list(range(8))
    assert [result["status"] for result in results] == ["stored"] * 3 + ["refused"] * 5
    assert [result["matched"] for result in results[:3]] == [False, False, True]
    assert [(result["error"]["code"], result["error"]["field"]) for result in results[3:]] == [
        ("invalid_request", "target_id"),
        ("unknown_user", "target_id"),
        ("invalid_request", "occurred_at"),
        ("invalid_request", "kind"),
        ("event_conflict", "event_id"),
    ]
    assert not {2, 4, 6} & set(ids(town.recommend(1, limit=100)))
    again = send(
        town, [{**sent, "event_id": result["event_id"]} for sent, result in zip(events, results, strict=True)][:3]
    )
    assert [result["status"] for result in again] == ["known"] * 3
    connection.rollback()
    assert connection.execute("select count(*) from duet.interactions").fetchone() == (4,)


def test_events_of_one_pair_count_in_the_order_in_which_they_were_sent(town: Served) -> None:
    results = send(town, [event(1, 2), event(2, 1), event(2, 1, "pass"), event(1, 2)])
    assert [result["matched"] for result in results] == [False, True, False, False]


def test_a_like_and_a_block_can_be_taken_back_and_no_old_like_makes_a_match_again(town: Served) -> None:
    def shown() -> set[int]:
        return {2, 4} & set(ids(town.recommend(1, limit=100)))

    assert shown() == {2, 4}
    results = send(town, [event(1, 2), event(2, 1), event(4, 1), event(1, 4, "block")])
    assert (results[1]["matched"], shown()) == (True, set())
    send(town, [event(1, 2, "unlike"), event(4, 1, "unblock")])  # who was blocked takes back nothing
    assert shown() == {2}
    assert ids(town.client.get("/v1/people/1/matches").json()) == []
    send(town, [event(1, 4, "unblock")])
    assert shown() == {2, 4}
    results = send(town, [event(1, 2), event(1, 4), event(4, 1)])
    assert [result["matched"] for result in results] == [True, False, True]


def test_a_thousand_events_are_stored_and_one_more_is_refused(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    many = [event(actor, target) for actor in range(1, 41) for target in range(1, 41) if actor != target][:1000]
    assert {result["status"] for result in send(town, many)} == {"stored"}
    assert connection.execute("select count(*) from duet.interactions").fetchone() == (1000,)
    refused = town.client.post("/v1/interactions:batch", json={"interactions": [*many, event(1, 2)]})
    assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (422, "interactions")


def test_without_the_database_no_event_is_acknowledged(town: Served, connection: psycopg.Connection[Any]) -> None:
    connection.execute("lock table duet.interactions in access exclusive mode")
    refused = town.client.post("/v1/interactions:batch", json={"interactions": [event(1, 2)]})
    connection.rollback()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert connection.execute("select count(*) from duet.interactions").fetchone() == (0,)


def test_matches_come_newest_first_a_page_at_a_time_without_the_hidden_and_the_separated(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    others = [2, 4, 6, 8, 10, 12]
    interact(connection, 1, others)
    for number, other in enumerate(others):
        interact(connection, other, [16] * number + [1])  # each a minute later than the one before
    interact(connection, 14, 1)
    interact(connection, 6, 1, "block")
    connection.execute("update duet.users set visible = false where user_id = 8")
    connection.commit()
    seen: list[int] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        cursor = {"cursor": page["next"]} if page["next"] else {}
        page = town.client.get("/v1/people/1/matches", params={"limit": 2, **cursor}).json()
        assert len(page["items"]) <= 2
        seen += ids(page)
    assert seen == [12, 10, 4, 2]


def test_a_page_that_cannot_be_is_refused_with_its_field(town: Served) -> None:
    for query, field in (("limit=0", "limit"), ("limit=x", "limit"), ("cursor=%21", "cursor"), ("size=5", "size")):
        refused = town.client.get(f"/v1/people/1/matches?{query}")
        assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (422, field)
    assert town.client.get("/v1/people/999/matches").json()["error"]["code"] == "unknown_user"


def test_who_likes_somebody_is_told_only_where_the_settings_allow_it(town: Served) -> None:
    refused = town.client.get("/v1/people/1/likes")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "likes_private")
    assert "DUET_RANKING__PENDING_LIKES" in refused.json()["error"]["message"]
