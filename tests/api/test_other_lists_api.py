"""Lists beside recommendations: those of guests, and of people similar to somebody."""

from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest

from tests.api.conftest import Served
from tests.serving_world import interact
from tests.waiting import until

GUEST = {"gender": "woman", "seeking": ["man"], "birth_date": "1995-01-01", "latitude": 51.05, "longitude": 3.72}


def ids(answer: dict[str, Any]) -> list[Any]:
    return [item["user_id"] for item in answer["items"]]


def test_a_guest_is_answered_and_nothing_of_them_is_stored(town: Served, connection: psycopg.Connection[Any]) -> None:
    people = count(connection, "select count(*) from duet.users")
    answer = town.client.post("/v1/recommendations:guest", json={"guest": GUEST, "liked": [40], "limit": 5})
    assert answer.status_code == 200, answer.text
    assert answer.json()["level"] == 1
    assert len(ids(answer.json())) == 5
    assert all(user_id % 2 == 0 and user_id != 40 for user_id in ids(answer.json()))
    known = town.recommend(1, limit=5)["request_id"]
    shown = "select count(*) from duet.impressions where request_id = %s"
    # Once the rows of an answer that came later are written, those of the guest's would be there.
    until(lambda: count(connection, shown, known) == 5)
    assert count(connection, shown, answer.json()["request_id"]) == 0
    assert count(connection, "select count(*) from duet.users") == people


def test_a_guest_is_told_names_where_they_are_asked_for(town: Served) -> None:
    name = f"ann-{uuid4()}"
    stored = town.client.put(f"/v1/people/{name}", json={**GUEST, "gender": "man", "seeking": ["woman"]})
    assert stored.status_code == 201
    body = {"guest": GUEST, "named_by": "text", "limit": 100}
    until(lambda: name in ids(town.client.post("/v1/recommendations:guest", json=body).json()))
    for left_out in ({"exclude": [name]}, {"passed": [name]}):
        shown = ids(town.client.post("/v1/recommendations:guest", json={"guest": GUEST, **left_out}).json())
        assert shown
        assert name not in shown
        assert all(isinstance(other, str) for other in shown)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "guest"),
        ({"guest": {"age_min": 40, "age_max": 30}}, "guest.age_min"),
        ({"guest": {"gendre": "woman"}}, "guest.gendre"),
        ({"guest": GUEST, "user_id": 1}, "user_id"),
        ({"guest": GUEST, "liked": [0]}, "liked.0"),
    ],
)
def test_a_guest_who_is_none_is_refused_with_the_field(town: Served, body: dict[str, Any], field: str) -> None:
    answer = town.client.post("/v1/recommendations:guest", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["details"][0]["field"] == field


def test_similar_people_are_those_that_the_requester_may_see(town: Served, connection: psycopg.Connection[Any]) -> None:
    interact(connection, 1, 38, "pass")
    answer = town.client.get("/v1/people/40/similar", params={"requester_id": 1, "limit": 100})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["level"], answer.json()["order"]) == (1, "similarity")
    assert sorted(ids(answer.json())) == [n for n in range(2, 41, 2) if n not in {38, 40}]
    interact(connection, 40, 1, "block")
    refused = town.client.get("/v1/people/40/similar", params={"requester_id": 1})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "Nobody has the id 40."


def test_somebody_who_may_not_be_seen_is_refused_by_the_name_that_was_asked_for(town: Served) -> None:
    name = f"carl-{uuid4()}"
    assert town.client.put(f"/v1/people/{name}", json={"gender": "man", "visible": False}).status_code == 201
    refused = town.client.get(f"/v1/people/{name}/similar", params={"requester_id": 1})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == f"Nobody has the id {name}."


def test_who_will_see_similar_people_must_be_said(town: Served) -> None:
    refused = town.client.get("/v1/people/40/similar")
    assert refused.status_code == 422
    assert refused.json()["error"]["details"][0]["field"] == "requester_id"
    assert town.client.get("/v1/people/40/similar?requester_id=Jos%E9").status_code == 422
    for name in ("nobody-at-all", 999):
        unknown = town.client.get("/v1/people/40/similar", params={"requester_id": name})
        assert unknown.json()["error"]["details"] == [{"field": "requester_id", "message": "nobody has this id"}]


def count(connection: psycopg.Connection[Any], statement: LiteralString, *parameters: str) -> int:
    connection.rollback()
    return int((connection.execute(statement, parameters).fetchone() or (-1,))[0])


def test_a_guest_may_name_a_thousand_people_in_each_list(town: Served) -> None:
    lists = {name: [f"{name}-{number}" for number in range(1000)] for name in ("exclude", "liked", "passed")}
    answer = town.client.post("/v1/recommendations:guest", json={"guest": GUEST, **lists})
    assert (answer.status_code, answer.json().get("level")) == (200, 1), answer.text[:500]
