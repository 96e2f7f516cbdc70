"""More of the same list: pages, people left out, and many lists at once."""

from typing import Any

import psycopg
import pytest

from tests.api.conftest import Served
from tests.serving_world import insert_person, interact
from tests.waiting import until


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["user_id"] for item in answer["items"]]


def pages(town: Served, user_id: int, **request: Any) -> list[dict[str, Any]]:
    found = [town.recommend(user_id, **request)]
    while found[-1]["next"] is not None:
        found.append(town.recommend(user_id, **request, cursor=found[-1]["next"]))
    return found


def test_pages_are_the_one_long_list_cut_in_parts(town: Served) -> None:
    whole = ids(town.recommend(1, limit=100))
    assert len(whole) == 20
    found = pages(town, 1, limit=6)
    assert [len(page["items"]) for page in found] == [6, 6, 6, 2]
    assert [user_id for page in found for user_id in ids(page)] == whole
    assert found[-1]["next"] is None


def test_while_people_come_and_go_nobody_comes_twice_and_nobody_is_passed_over(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    first = town.recommend(1, limit=6)
    rest = set(ids(town.recommend(1, limit=100))) - set(ids(first))
    gone, hidden = sorted(rest)[:2]
    interact(connection, gone, 1, "block")
    connection.execute("update duet.users set visible = false where user_id = any(%s)", [[hidden, ids(first)[0]]])
    insert_person(connection, 102)
    connection.commit()
    town.wait_for(39)
    seen, page = ids(first), first
    while page["next"] is not None:
        page = town.recommend(1, limit=6, cursor=page["next"], explain=True)
        assert not set(seen) & set(ids(page))
        seen += ids(page)
    assert set(seen) - set(ids(first)) >= rest - {gone, hidden}
    assert not {gone, hidden} & set(seen)


def test_a_filter_by_an_attribute_that_nobody_has_names_the_field_and_those_there_are(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("insert into duet.attribute_slots (name, slot) values ('height_cm', 3)")
    connection.execute("""
        update duet.users set attributes = '{"height_cm": 181, "city": "Ghent", "smoker": true}' where user_id in (2, 4)
    """)
    connection.commit()
    filters = {"attributes": {"height_cm": {"gte": 180}, "city": {"in": ["Ghent"]}, "smoker": {"is": True}}}

    def shown() -> list[int]:
        answer = town.client.post("/v1/recommendations", json={"user_id": 5, "filters": filters}).json()
        return sorted(item["user_id"] for item in answer.get("items", []))

    until(lambda: shown() == [2, 4])
    filters = {"attributes": {"city": {"is": True}}}
    refused = town.client.post("/v1/recommendations:guest", json={"guest": {}, "filters": filters})
    assert refused.status_code == 422
    assert refused.json()["error"]["details"][0] == {
        "field": "filters.attributes.city", "message": "it holds text: ask with `in` and the texts."
    }  # fmt: skip
    filters = {"attributes": {"height": {"gte": 180}}}
    for call, who in (("recommendations", {"user_id": 5}), ("recommendations:batch", {"user_ids": [5, 7]})):
        refused = town.client.post(f"/v1/{call}", json={**who, "filters": filters})
        assert refused.status_code == 422
        assert refused.json()["error"]["details"][0]["field"] == "filters.attributes.height"
        assert "did you mean `height_cm`" in refused.json()["error"]["message"]


def test_who_is_excluded_is_in_no_answer_and_the_others_move_up(town: Served) -> None:
    usual = ids(town.recommend(5, limit=8))
    unwanted = usual[1:4]
    answer = town.recommend(5, limit=5, exclude=[*unwanted, 999_999, *unwanted])
    assert ids(answer) == [user_id for user_id in usual if user_id not in unwanted]
    assert ids(town.recommend(5, limit=8)) == usual
    following = town.recommend(5, limit=5, exclude=unwanted, cursor=answer["next"])
    assert not set(ids(following)) & {*unwanted, *ids(answer)}


@pytest.mark.parametrize("cursor", ["", "x", "AAAAAAAAAAA=", "é", "BwAAAAAAAAA"])
def test_a_cursor_that_is_none_of_ours_is_refused(town: Served, cursor: str) -> None:
    refused = town.client.post("/v1/recommendations", json={"user_id": 1, "cursor": cursor})
    assert (refused.status_code, refused.json()["error"]["details"][0]["field"]) == (422, "cursor")


def test_a_batch_answers_each_person_as_a_call_of_their_own_would(town: Served) -> None:
    answer = town.client.post("/v1/recommendations:batch", json={"user_ids": [1, 999, 2], "limit": 4})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["user_id"] for result in results] == [1, 999, 2]
    assert results[1]["answer"] is None
    assert results[1]["error"]["code"] == "unknown_user"
    assert results[1]["error"]["details"][0]["field"] == "user_id"
    for result in (results[0], results[2]):
        alone = town.recommend(result["user_id"], limit=4)
        assert ids(result["answer"]) == ids(alone)
        assert (result["answer"]["level"], result["error"]) == (1, None)
    assert len({results[0]["answer"]["request_id"], results[2]["answer"]["request_id"]}) == 2
