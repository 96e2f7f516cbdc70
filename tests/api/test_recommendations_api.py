import re
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.person_names import PersonNames
from tests.api.conftest import Served
from tests.conftest import make_settings
from tests.serving_world import insert_person, interact
from tests.waiting import until

LIKE = {"actor_id": 1, "target_id": 40, "kind": "like"}


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["user_id"] for item in answer["items"]]


def test_an_answer_names_people_release_level_and_times(town: Served) -> None:
    answer = town.recommend(1, limit=5, explain=True)
    assert (answer["level"], answer["level_name"], answer["reason"], answer["release"]) == (1, "full", None, "e1-i1-r1")
    assert len(answer["items"]) == 5
    assert all(user_id % 2 == 0 for user_id in ids(answer))
    first = answer["items"][0]
    assert first["score"] == pytest.approx(first["p_like"] * first["p_liked_back"], rel=1e-5)
    assert "retrieval" in first["sources"]
    assert first["explanation"]["p_like"][0]["feature"] == "score_forward"
    assert answer["degraded"] == []
    assert answer["timings_ms"]["total"] > 0


def test_an_interaction_is_felt_by_the_next_answer_of_that_person(town: Served) -> None:
    first = ids(town.recommend(1))[0]
    stored = town.client.post("/v1/interactions", json={**LIKE, "target_id": first})
    assert (stored.status_code, stored.json()["status"]) == (201, "stored")
    assert first not in ids(town.recommend(1, limit=100))
    assert first in ids(town.recommend(3, limit=100))


def test_the_same_event_twice_is_stored_once(town: Served, connection: psycopg.Connection[Any]) -> None:
    event = {**LIKE, "event_id": str(uuid4())}
    first, second = (town.client.post("/v1/interactions", json=event) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["status"] == "known"
    assert connection.execute("select count(*) from duet.interactions").fetchone() == (1,)


def test_a_block_is_felt_by_both(town: Served) -> None:
    assert 40 in ids(town.recommend(1, limit=100))
    town.client.post("/v1/interactions", json={**LIKE, "actor_id": 40, "target_id": 1, "kind": "block"})
    assert 40 not in ids(town.recommend(1, limit=100))
    assert 1 not in ids(town.recommend(40, limit=100))


def test_a_hidden_or_changed_person_is_gone_from_everybody_at_once(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("update duet.users set visible = false where user_id = 40")
    connection.execute("update duet.users set seeking = '{man}' where user_id = 38")
    connection.commit()
    assert not {38, 40} & set(ids(town.recommend(1, limit=100)))


def test_a_person_imported_just_now_gets_people_and_is_then_found(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    insert_person(connection, 101, interests=["chess"])
    connection.commit()
    answer = town.recommend(101)
    assert (answer["level"], len(answer["items"])) == (1, 20)
    town.wait_for(41)
    assert 101 in ids(town.recommend(2, limit=100))


def test_a_newcomer_is_an_answer_of_the_index_within_seconds_and_without_a_rebuild(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    def beside_the_index() -> int:
        return int(town.client.get("/health").json()["newcomers"]["people"])

    until(lambda: beside_the_index() == 0)  # another test's newcomer of this id is gone
    insert_person(connection, 101, interests=["chess"])
    connection.commit()
    until(lambda: beside_the_index() == 1)
    askers = iter(range(8, 41, 2))  # a kept answer knows nothing of who came since

    def sources() -> list[str]:
        items = town.recommend(next(askers), limit=100)["items"]
        return next((item["sources"] for item in items if item["user_id"] == 101), [])

    until(lambda: "retrieval" in sources())
    report = town.client.get("/health").json()["newcomers"]
    assert (report["people"], report["missing"], report["left_out"], report["message"]) == (1, 1, 0, None)
    connection.execute("delete from duet.users where user_id = 101")
    connection.commit()
    until(lambda: beside_the_index() == 0, 90)


def test_somebody_unknown_is_a_404_with_a_code(town: Served) -> None:
    response = town.client.post("/v1/recommendations", json={"user_id": 999})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_user")
    assert response.json()["error"]["details"] == [{"field": "user_id", "message": "nobody has this id"}]


def test_filters_narrow_the_answer(town: Served) -> None:
    answer = town.recommend(1, limit=100, filters={"interests_any": ["chess"]})
    assert ids(answer)
    assert all(user_id % 3 == 0 for user_id in ids(answer))


def logged(connection: psycopg.Connection[Any], answer: Any) -> list[Any]:
    """Wait until an answer's impressions are written, and return them in order."""
    rows: list[Any] = []

    def are_written() -> bool:
        connection.rollback()
        rows[:] = connection.execute(
            "select target_id, position, release, level, propensity from duet.impressions"
            " where request_id = %s order by position",
            (answer["request_id"],),
        ).fetchall()
        return len(rows) == len(answer["items"])

    until(are_written)
    return rows


def test_what_was_shown_is_logged(town: Served, connection: psycopg.Connection[Any]) -> None:
    answer = town.recommend(1, limit=3)
    rows = logged(connection, answer)
    assert [row[0] for row in rows] == ids(answer)
    assert rows[0][1:] == (1, "e1-i1-r1", 1, 1.0)


def test_every_answer_leaves_a_row_of_its_own(town: Served, connection: psycopg.Connection[Any]) -> None:
    answer = town.recommend(1, limit=3)
    rows: list[Any] = []

    def is_written() -> bool:
        connection.rollback()
        rows[:] = connection.execute(
            "select user_id, experiment, arm, variant, release, level, reason, shown, failed, took_ms > 0"
            "  from duet.answers where request_id = %s",
            (answer["request_id"],),
        ).fetchall()
        return bool(rows)

    until(is_written)
    assert rows == [(1, None, "champion", "champion", "e1-i1-r1", 1, None, 3, False, True)]


ERRORS = {
    "an unknown field": ("POST", "/v1/recommendations", {"json": {"user_id": 1, "x": 1}}, 422, "invalid_request"),
    "a number as text": ("POST", "/v1/recommendations", {"json": {"user_id": 1, "limit": "5"}}, 422, "invalid_request"),
    "themselves": ("POST", "/v1/interactions", {"json": {**LIKE, "target_id": 1}}, 422, "invalid_request"),
    "the future": (
        "POST", "/v1/interactions", {"json": {**LIKE, "occurred_at": "2999-01-01T00:00:00Z"}}, 422, "invalid_request",
    ),
    "NaN": ("POST", "/v1/recommendations", {"content": b'{"user_id": NaN}'}, 400, "malformed_body"),
    "a key twice": ("POST", "/v1/interactions", {"content": b'{"kind": 1, "kind": 2}'}, 400, "malformed_body"),
    "deep nesting": ("POST", "/v1/recommendations", {"content": b"[" * 4000}, 400, "malformed_body"),
    "too large": ("POST", "/v1/recommendations", {"content": b" " * 5000}, 413, "body_too_large"),
    "a form": ("POST", "/v1/recommendations", {"data": {"user_id": "1"}}, 415, "unsupported_media_type"),
    "pickle": (
        "POST", "/v1/interactions",
        {"content": b"\x80", "headers": {"content-type": "application/vnd.bentoml+pickle"}},
        415, "unsupported_media_type",
    ),
    "no such path": ("GET", "/v1/nothing", {}, 404, "unknown_path"),
    "a slash too many": ("POST", "/v1/recommendations/", {"json": {"user_id": 1}}, 404, "unknown_path"),
    "a wrong method": ("GET", "/v1/recommendations", {}, 405, "wrong_method"),
    "a wrong method on a page": ("POST", "/health/live", {}, 405, "wrong_method"),
    "an unknown target": ("POST", "/v1/interactions", {"json": {**LIKE, "target_id": 999}}, 404, "unknown_user"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_every_error_has_one_shape(town: Served, case: str) -> None:
    method, path, body, status, code = ERRORS[case]
    if "content" in body and "headers" not in body:
        body = {**body, "headers": {"content-type": "application/json"}}
    response = town.client.request(method, path, **body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    assert set(response.json()) == {"error", "request_id"}
    assert response.headers["content-type"] == "application/json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert re.fullmatch(r"\d+\.\d+", response.headers["x-process-time"])


REFUSED_FIELDS = {
    "themselves": ("target_id", "must be somebody else than `actor_id`"),
    "a number as text": (
        "limit", "Input should be a valid integer, not a string: send the number without quotation marks",
    ),
    "a slash too many": ("path", "must not end with a slash"),
    "a wrong method": ("method", "must be `POST`"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_FIELDS)
def test_an_error_names_the_field_and_what_to_do(town: Served, case: str) -> None:
    method, path, body, *_ = ERRORS[case]
    (detail,) = town.client.request(method, path, **body).json()["error"]["details"]
    assert (detail["field"], detail["message"]) == REFUSED_FIELDS[case]


def test_the_document_and_its_page_are_also_where_other_frameworks_have_them(town: Served) -> None:
    assert town.client.get("/openapi.json").json() == town.client.get("/docs.json").json()
    assert town.client.get("/docs").text == town.client.get("/").text


def test_a_request_id_of_the_client_is_echoed_and_may_be_used_again(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    mine = str(uuid4())
    headers = {"X-Request-ID": mine}
    responses = [town.client.post("/v1/recommendations", json={"user_id": 1}, headers=headers) for _ in range(2)]
    assert [response.headers["X-Request-ID"] for response in responses] == [mine, mine]
    answers = [response.json() for response in responses]
    assert len({mine, *(answer["request_id"] for answer in answers)}) == 3
    for answer in answers:
        assert [row[0] for row in logged(connection, answer)] == ids(answer)
    assert UUID(town.client.get("/health/live").headers["X-Request-ID"])


def test_an_interaction_can_be_joined_to_what_was_shown(town: Served, connection: psycopg.Connection[Any]) -> None:
    answer = town.recommend(3, limit=2)
    liked = {"actor_id": 3, "target_id": ids(answer)[0], "kind": "like", "request_id": answer["request_id"]}
    assert town.client.post("/v1/interactions", json=liked).status_code == 201
    logged(connection, answer)
    connection.rollback()
    joined = connection.execute(
        "select i.position from duet.impressions i join duet.interactions a"
        " using (request_id, target_id) where request_id = %s",
        (answer["request_id"],),
    ).fetchall()
    assert joined == [(1,)]


def test_the_answer_says_which_order_served(town: Served) -> None:
    assert town.recommend(1)["order"] == "ranker"


def test_health_says_what_is_there(town: Served) -> None:
    assert town.client.get("/health/live").json() == {"status": "alive"}
    ready = town.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    report = town.client.get("/health").json()
    assert report["release"]["release"] == "e1-i1-r1"
    assert report["population"]["people"] == 40
    assert (report["postgres"]["status"], report["redis"]["status"]) == ("up", "up")
    assert report["mlflow"]["status"] == "not_configured"


def test_metrics_have_closed_labels(town: Served) -> None:
    town.recommend(1)
    for path in range(5):
        town.client.get(f"/unknown/{path}")
    text = town.client.get("/metrics").text
    assert 'duet_answers_total{level="full",reason="none"}' in text
    assert 'duet_stage_seconds_bucket{le="0.001",stage="ranking"}' in text
    assert 'duet_http_requests_total{route="/v1/recommendations",status="200"}' in text
    assert "duet_release_version{" in text
    assert "/unknown/" not in text


def test_the_page_at_the_root_loads_nothing_from_elsewhere(town: Served) -> None:
    page = town.client.get("/")
    assert page.status_code == 200
    assert "http" not in page.text.replace("<!doctype html>", "")
    assert town.client.get("/static_content/swagger-ui-bundle.js").status_code == 200


def test_no_personal_data_is_logged_at_info(town: Served, connection: psycopg.Connection[Any]) -> None:
    insert_person(connection, 987654321)
    interact(connection, 987654321, 2)
    town.recommend(987654321)
    assert "987654321" not in town.log.read_text()
    assert "request_id=" in town.log.read_text() or "request_id" in town.log.read_text()


def test_the_log_names_a_person_so_that_their_errors_are_found_and_nobody_else_knows_who_it_is(town: Served) -> None:
    mine = "checkout-7f"
    missing = town.client.post("/v1/recommendations", json={"user_id": 987654322}, headers={"X-Request-ID": mine})
    assert (missing.status_code, missing.headers["X-Request-ID"]) == (404, mine)
    name = PersonNames.of(make_settings(town.log.parent / "duet"))(987654322)
    until(lambda: mine in town.log.read_text())  # a line is written after its answer is sent
    (line,) = [line for line in town.log.read_text().splitlines() if mine in line and "status=404" in line]
    assert f"person={name}" in line
    assert "987654322" not in town.log.read_text()


def test_when_eligibility_cannot_be_read_the_answer_is_empty_and_nothing_is_stored(
    town: Served, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("lock table duet.users, duet.interactions in access exclusive mode")
    answer = town.recommend(1)
    refused = town.client.post("/v1/interactions", json=LIKE)
    connection.rollback()
    assert (answer["level"], answer["level_name"], answer["items"]) == (4, "empty", [])
    assert answer["reason"] == "eligibility_unavailable"
    assert answer["message"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert connection.execute("select count(*) from duet.interactions").fetchone() == (0,)
    assert town.recommend(1)["level"] == 1


def test_lost_connections_are_replaced_unaided(town: Served, connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = 'duet-serving'"
    )
    connection.commit()
    levels = [town.recommend(1)["level"] for _ in range(20)]
    assert levels[-1] == 1
    assert set(levels) <= {1, 4}
