"""People as an app creates, changes, hides and reads them, and what the next answers make of it."""

import json
from typing import Any

import psycopg
import pytest

from tests.api.conftest import Served
from tests.serving_world import interact
from tests.waiting import until

ANNA = {
    "birth_date": "1994-05-17",
    "gender": "Woman",
    "seeking": ["man", " Man "],
    "age_min": 20,
    "age_max": 60,
    "latitude": 51.05,
    "longitude": 3.72,
    "interests": ["Hiking", "jazz"],
    "attributes": {"height_cm": 172, "smokes": False, "city": "Gent"},
}


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["user_id"] for item in answer["items"]]


def put(town: Served, user_id: int, **profile: Any) -> Any:
    return town.client.put(f"/v1/people/{user_id}", json=profile)


def read(town: Served, user_id: int) -> dict[str, Any]:
    answer = town.client.get(f"/v1/people/{user_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_who_signs_up_gets_people_at_once_and_is_found_by_others_within_seconds(town: Served) -> None:
    unknown = town.client.post("/v1/recommendations", json={"user_id": 501})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_user")
    created = put(town, 501, **ANNA)
    assert (created.status_code, created.json()["status"]) == (201, "created")
    answer = town.recommend(501)
    assert (answer["level"], len(answer["items"])) == (1, 20)
    assert all(user_id % 2 == 0 for user_id in ids(answer))
    # An explained answer is made anew; kept ones show somebody new when they expire.
    until(lambda: 501 in ids(town.recommend(2, limit=100, explain=True)))


def test_a_person_is_read_as_they_were_written_by_the_rules_of_the_import(town: Served) -> None:
    put(town, 502, **ANNA)
    found = read(town, 502)
    kept = {**ANNA, "gender": "woman", "seeking": ["man"], "interests": ["hiking", "jazz"]}
    assert {name: found[name] for name in kept} == kept
    assert (found["visible"], found["bio"], found["max_distance_km"]) == (True, None, None)


def test_put_replaces_and_patch_changes_what_it_names(town: Served) -> None:
    put(town, 503, **ANNA, bio="I walk.")
    patched = town.client.patch(
        "/v1/people/503", json={"interests": ["chess"], "bio": None, "attributes": {"city": None, "height_cm": 173}}
    )
    assert (patched.status_code, patched.json()["status"]) == (200, "updated")
    after = read(town, 503)
    assert (after["interests"], after["bio"], after["gender"]) == (["chess"], None, "woman")
    assert after["attributes"] == {"height_cm": 173, "smokes": False}
    replaced = put(town, 503, gender="woman")
    assert (replaced.status_code, replaced.json()["status"]) == (200, "updated")
    again = read(town, 503)
    assert (again["interests"], again["birth_date"], again["attributes"]) == ([], None, {})
    assert again["created_at"] == after["created_at"]
    assert put(town, 503, gender="woman").json()["status"] == "unchanged"


def test_a_hidden_person_is_in_no_answer_until_they_are_shown_again(town: Served) -> None:
    shown = ids(town.recommend(31, limit=3))
    hidden = town.client.post(f"/v1/people/{shown[0]}/hide")
    assert (hidden.status_code, hidden.json()["status"]) == (200, "updated")
    assert shown[0] not in ids(town.recommend(31, limit=3))
    # A profile sent anew does not undo what a moderator did.
    put(town, shown[0], gender="man", seeking=["woman"])
    assert shown[0] not in ids(town.recommend(31, limit=100))
    assert town.client.post(f"/v1/people/{shown[0]}/show").status_code == 200
    until(lambda: shown[0] in ids(town.recommend(31, limit=100, explain=True)))


def test_an_erased_person_is_in_no_answer_and_comes_back_as_somebody_new(town: Served, connection: Any) -> None:
    put(town, 40, **ANNA | {"gender": "man", "seeking": []})
    interact(connection, 40, [1, 3], "like")
    assert 40 in ids(town.recommend(5, limit=100))
    erased = town.client.delete("/v1/people/40")
    assert 40 not in ids(town.recommend(5, limit=100)), "the answer that was kept for them is checked again"
    assert (erased.status_code, erased.json()["status"]) == (202, "running")
    found = {place["place"]: place["before"] for place in erased.json()["places"]}
    assert found == {"duet.users": 1, "duet.interactions": 2}
    assert (town.client.get("/v1/people/40").status_code, read_report(town, 40)) == (404, erased.json()["erasure_id"])
    assert town.client.delete("/v1/people/40").json()["erasure_id"] == erased.json()["erasure_id"]
    assert put(town, 40, **ANNA).status_code == 201
    assert connection.execute("select count(*) from duet.interactions where actor_id = 40").fetchall() == [(0,)]
    assert town.client.get("/v1/people/4040/erasure").status_code == 404
    assert town.client.delete("/v1/people/4040").status_code == 404


def read_report(town: Served, user_id: int) -> int:
    return int(town.client.get(f"/v1/people/{user_id}/erasure").json()["erasure_id"])


def test_new_wishes_count_in_ones_own_next_answer_and_in_those_of_others(town: Served) -> None:
    first = ids(town.recommend(33, limit=5))
    assert town.client.patch("/v1/people/33", json={"seeking": ["woman"]}).status_code == 200
    assert not set(first) & set(ids(town.recommend(33, limit=5)))
    assert 33 not in ids(town.recommend(2, limit=100))


@pytest.mark.parametrize(
    ("profile", "field", "message"),
    [
        ({"age_min": 17}, "age_min", "must be a whole number from 18 to 120"),
        ({"age_max": 10**30}, "age_max", "must be a whole number from 18 to 120"),
        ({"age_min": 40, "age_max": 30}, "age_min", "must not be above `age_max`"),
        ({"latitude": 91.0, "longitude": 0.0}, "latitude", "must be a number from -90 to 90"),
        ({"latitude": 50.0}, "longitude", "is missing: it must be a number from -180 to 180"),
        ({"birth_date": "2020-01-01"}, "birth_date", "must be the date of birth of somebody 18 to 120 years old"),
        ({"birth_date": "2999-01-01"}, "birth_date", "lies in the future"),
        ({"created_at": "1969-12-31T00:00:00Z"}, "created_at", "must be a time from 1970 to now"),
        ({"interests": ["x" * 65]}, "interests", "labels of at most 64 characters"),
        ({"gender": 5}, "gender", "Input should be a valid string"),
        ({"age_min": "30"}, "age_min", "send the number without quotation marks"),
        ({"hobby": "chess"}, "hobby", "Extra inputs are not permitted"),
        ({"visible": None}, "visible", "Input should be a valid boolean"),
    ],
    ids=str,
)
def test_a_profile_that_breaks_the_contract_is_refused_with_its_field(
    town: Served, profile: dict[str, Any], field: str, message: str
) -> None:
    refused = put(town, 504, **profile)
    assert refused.status_code == 422
    detail = refused.json()["error"]["details"][0]
    assert (detail["field"], message in detail["message"]) == (field, True), detail
    assert town.client.get("/v1/people/504").status_code == 404


def test_a_change_that_does_not_fit_what_is_stored_is_refused(town: Served) -> None:
    put(town, 505, **ANNA)
    for change, field in (({"age_min": 61}, "age_min"), ({"latitude": None}, "latitude")):
        refused = town.client.patch("/v1/people/505", json=change)
        assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (422, field)
    assert read(town, 505)["age_min"] == 20


@pytest.mark.parametrize(
    "path",
    [
        "/v1/people/0",
        "/v1/people/a%01b",
        "/v1/people/9223372036854775808",
        "/v1/people/007",
        "/v1/people/Jos%E9/matches",
    ],
)
def test_an_id_that_is_none_is_refused_with_what_it_must_be(town: Served, path: str) -> None:
    refused = town.client.get(path)
    assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (422, "user_id")


def test_nobody_is_changed_hidden_or_read_who_is_not_there(town: Served) -> None:
    answers = [
        town.client.get("/v1/people/599"),
        town.client.patch("/v1/people/599", json={"gender": "man"}),
        town.client.post("/v1/people/599/hide"),
        town.client.delete("/v1/people/599"),
        town.client.get("/v1/people/599/matches"),
        town.client.get("/v1/people/599/similar?requester_id=1"),
        town.client.get("/v1/people/nobody-at-all"),
    ]
    told = [(answer.status_code, answer.json()["error"]) for answer in answers]
    assert {(status, error["code"]) for status, error in told} == {(404, "unknown_user")}
    assert [[detail["field"] for detail in error["details"]] for _, error in told] == [["user_id"]] * len(told)


def test_a_batch_stores_each_person_that_fits_and_names_the_fault_of_each_other(town: Served) -> None:
    people: list[Any] = [
        {"user_id": 601, **ANNA},
        {"user_id": 1, "interests": ["chess"]},
        {"user_id": 602, "age_min": 5},
        {"user_id": 601, "gender": "man"},
        {"user_id": "007"},
        {"gender": "man"},
        {"user_id": 603, "latitude": 1e999},
        {"user_id": 604, "attributes": {"weight": 80}},
    ]
    body = '{"people": [' + ", ".join(json_of(person) for person in people) + "]}"
    answer = town.client.post("/v1/people:batch", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["index"] for result in results] == list(range(8))
    assert [(result["user_id"], result["status"]) for result in results] == [
        (601, "created"),
        (1, "updated"),
        (602, "refused"),
        (601, "refused"),
        (None, "refused"),
        (None, "refused"),
        (603, "refused"),
        (604, "created"),
    ]
    faults = [(result["error"]["code"], result["error"]["field"]) for result in results if result["error"]]
    assert faults == [
        ("out_of_range", "age_min"),
        ("duplicate_key", "user_id"),
        ("wrong_type", "user_id"),
        ("wrong_type", "user_id"),
        ("not_finite", "latitude"),
    ]
    assert read(town, 1)["gender"] == "woman"
    assert town.recommend(601)["level"] == 1


def json_of(person: dict[str, Any]) -> str:
    return json.dumps(person).replace("Infinity", "1e999")


def test_numbers_among_the_attributes_become_features_as_after_an_import(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    put(town, 506, attributes={"height_cm": 172, "city": "Gent", "smokes": True})
    assert connection.execute("select name, slot from duet.attribute_slots").fetchall() == [("height_cm", 0)]
    put(town, 507, attributes={"weight": 70, "height_cm": 180})
    connection.rollback()
    assert connection.execute("select name, slot from duet.attribute_slots order by slot").fetchall() == [
        ("height_cm", 0),
        ("weight", 1),
    ]


def test_a_person_without_the_database_is_not_acknowledged(town: Served, connection: psycopg.Connection[Any]) -> None:
    connection.execute("lock table duet.users in access exclusive mode")
    refused = put(town, 508, gender="man")
    connection.rollback()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert put(town, 508, gender="man").status_code == 201


def test_an_interaction_with_somebody_new_counts_at_once(town: Served, connection: psycopg.Connection[Any]) -> None:
    put(town, 509, **ANNA)
    like = town.client.post("/v1/interactions", json={"actor_id": 509, "target_id": 40, "kind": "like"})
    assert like.status_code == 201
    assert 40 not in ids(town.recommend(509, limit=100))
    interact(connection, 38, 509, "block")
    assert 38 not in ids(town.recommend(509, limit=100))


def test_a_wrong_method_names_the_right_ones(town: Served) -> None:
    calls = (("POST", "/v1/people/1", "DELETE, GET, PATCH, PUT"), ("DELETE", "/v1/recommendations", "POST"))
    for method, path, allowed in calls:
        refused = town.client.request(method, path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, "wrong_method")
        assert refused.headers["allow"] == allowed
        assert "POST" in refused.text or "`PUT`" in refused.text
