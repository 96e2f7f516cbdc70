"""People whom an app names by text: UUIDs, numbers that JavaScript would round, ids of imports that were hashed."""

from typing import Any

import psycopg
import pytest

from feature_repo.contract.identities import hashed_id
from tests.api.conftest import Served
from tests.serving_world import insert_person
from tests.waiting import until

UUID = "0b6f5f4e-8c7b-4d6e-9a3f-1b2c3d4e5f60"
ODD = "ann/é: 5%"
WOMAN = {"birth_date": "1994-05-17", "gender": "woman", "seeking": ["man"], "latitude": 51.05, "longitude": 3.72}
MAN = {**WOMAN, "gender": "man", "seeking": ["woman"]}


def ids(answer: dict[str, Any]) -> list[Any]:
    return [item["user_id"] for item in answer["items"]]


def path(name: str) -> str:
    return "/v1/people/" + "".join(f"%{byte:02X}" for byte in name.encode())


def put(town: Served, name: str, **profile: Any) -> None:
    answer = town.client.put(path(name), json=profile)
    assert (answer.status_code, answer.json()["user_id"]) == (201, name), answer.text


def recommend(town: Served, name: Any, **request: Any) -> dict[str, Any]:
    answer = town.client.post("/v1/recommendations", json={"user_id": name, **request})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def interact(town: Served, actor: Any, target: Any, kind: str) -> dict[str, Any]:
    answer = town.client.post("/v1/interactions", json={"actor_id": actor, "target_id": target, "kind": kind})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("name", [UUID, ODD, "x" * 128, "1" + "é" * 3])
def test_a_person_with_a_name_is_created_read_changed_and_served_by_it(town: Served, name: str) -> None:
    put(town, name, **WOMAN)
    assert town.client.get(path(name)).json()["user_id"] == name
    assert town.client.patch(path(name), json={"interests": ["chess"]}).json()["status"] == "updated"
    assert town.client.put(path(name), json=WOMAN).json()["status"] == "updated"
    answer = recommend(town, name, limit=3)
    assert answer["level"] == 1
    assert all(isinstance(user_id, str) and user_id.isdigit() for user_id in ids(answer))


def test_named_people_find_block_like_and_match_each_other_by_name(town: Served) -> None:
    put(town, "ann", **WOMAN)
    put(town, UUID.upper(), **MAN)
    put(town, "bob", **MAN)
    until(lambda: {UUID, "bob"} <= set(ids(recommend(town, "ann", limit=100, explain=True))))
    assert "bob" not in ids(recommend(town, "ann", limit=100, exclude=["bob", 7, "nobody"]))
    assert not interact(town, "ann", UUID, "like")["matched"]
    assert interact(town, UUID, "ann", "like")["matched"]
    assert ids(town.client.get("/v1/people/ann/matches").json()) == [UUID]
    interact(town, "bob", "ann", "block")
    assert not {UUID, "bob"} & set(ids(recommend(town, "ann", limit=100)))
    assert all(isinstance(user_id, int) for user_id in ids(town.recommend(1)))


def test_a_number_as_text_is_the_person_of_that_number_and_none_is_rounded(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    first, second = 2**63 - 2, 2**63 - 1
    for user_id in (first, second):
        insert_person(connection, user_id, gender="man", seeking=["woman"])
    connection.commit()
    until(lambda: str(second) in ids(recommend(town, "1", limit=100, explain=True)))
    interact(town, "1", str(first), "block")
    shown = ids(recommend(town, "1", limit=100, explain=True))
    assert (str(first) in shown, str(second) in shown) == (False, True)


def test_people_imported_under_a_hash_are_known_by_the_id_that_was_hashed(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    insert_person(connection, hashed_id("carl"), attributes='{"source_id": "carl"}', gender="man", seeking=["woman"])
    insert_person(connection, 777, attributes='{"source_id": "dora"}')
    of_digits = hashed_id("12")
    insert_person(connection, of_digits, attributes='{"source_id": "12"}', gender="man", seeking=["woman"])
    connection.commit()
    assert town.client.get("/v1/people/carl").json()["user_id"] == "carl"
    assert town.client.get("/v1/people/dora").status_code == 404
    assert town.client.put("/v1/people/carl", json=MAN).status_code == 200
    until(lambda: {"carl", str(of_digits)} <= set(ids(recommend(town, "1", limit=100, explain=True))))
    assert town.client.get(f"/v1/people/{of_digits}").json()["user_id"] == of_digits


def test_whose_number_is_taken_gets_another_and_nobody_elses_row(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    insert_person(connection, hashed_id("eve"), bio="somebody else")
    connection.commit()
    put(town, "eve", **WOMAN)
    assert town.client.get("/v1/people/eve").json()["bio"] is None
    assert town.client.get(f"/v1/people/{hashed_id('eve')}").json()["bio"] == "somebody else"


def test_batches_take_names_and_answer_with_them(town: Served) -> None:
    people = [{"user_id": "ann", **WOMAN}, {"user_id": "ann", **WOMAN}, {"user_id": UUID}, {"user_id": 5}]
    results = town.client.post("/v1/people:batch", json={"people": people}).json()["results"]
    assert [(result["user_id"], result["status"]) for result in results] == [
        ("ann", "created"),
        ("ann", "refused"),
        (UUID, "created"),
        (5, "unchanged"),
    ]
    events = [
        {"actor_id": "ann", "target_id": 2, "kind": "pass"},
        {"actor_id": "ann", "target_id": "nobody", "kind": "like"},
        {"actor_id": UUID, "target_id": UUID.upper(), "kind": "like"},
    ]
    stored = town.client.post("/v1/interactions:batch", json={"interactions": events}).json()["results"]
    assert [result["status"] for result in stored] == ["stored", "refused", "refused"]
    assert (stored[1]["error"]["code"], stored[1]["error"]["field"]) == ("unknown_user", "target_id")
    answers = town.client.post("/v1/recommendations:batch", json={"user_ids": ["ann", 3, "nobody"], "limit": 30}).json()
    named, numbered, unknown = answers["results"]
    assert "2" not in ids(named["answer"])
    assert "4" in ids(named["answer"])
    assert 4 in ids(numbered["answer"])
    assert (unknown["user_id"], unknown["error"]["code"]) == ("nobody", "unknown_user")


@pytest.mark.parametrize(
    "name", ["", "007", "0", "9223372036854775808", "tab\there", "x" * 129, ".", "..", True, 1.5, None, []]
)
def test_what_can_be_nobodys_name_is_refused_with_its_field(town: Served, name: Any) -> None:
    refused = town.client.post("/v1/recommendations", json={"user_id": name})
    assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (422, "user_id")


def test_nobody_likes_themselves_under_two_names(town: Served) -> None:
    refused = town.client.post("/v1/interactions", json={"actor_id": 1, "target_id": "1", "kind": "like"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")
