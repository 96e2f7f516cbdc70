import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from serving.api.models import InteractionRequest
from serving.api.recommendation_models import RecommendationRequest
from serving.api.responses import invalid

GOOD_REQUESTS = [
    {"user_id": 1},
    {"user_id": 2**63 - 1, "limit": 100},
    {"user_id": 1, "filters": {}},
    {"user_id": 1, "filters": {"age_min": 18, "age_max": 18, "max_distance_km": 1, "interests_any": ["é"]}},
    {"user_id": 1, "explain": True, "filters": None},
]
BAD_REQUESTS = [
    {},
    {"user_id": 0},
    {"user_id": -1},
    {"user_id": 2**63},
    {"user_id": 10**30},
    {"user_id": "1"},
    {"user_id": 1.5},
    {"user_id": True},
    {"user_id": None},
    {"user_id": 1, "limit": 0},
    {"user_id": 1, "limit": 101},
    {"user_id": 1, "limit": "5"},
    {"user_id": 1, "extra": 1},
    {"user_id": 1, "explain": 1},
    {"user_id": 1, "filters": {"age_min": 17}},
    {"user_id": 1, "filters": {"age_min": 40, "age_max": 30}},
    {"user_id": 1, "filters": {"max_distance_km": 0}},
    {"user_id": 1, "filters": {"max_distance_km": 1e400}},
    {"user_id": 1, "filters": {"interests_any": []}},
    {"user_id": 1, "filters": {"interests_any": ["x"] * 21}},
    {"user_id": 1, "filters": {"interests_any": ["tab\there"]}},
    {"user_id": 1, "filters": {"unknown": 1}},
]
LIKE = {"actor_id": 1, "target_id": 2, "kind": "like"}
BAD_INTERACTIONS = [
    {**LIKE, "target_id": 1},
    {**LIKE, "kind": "love"},
    {**LIKE, "occurred_at": "2026-01-01T00:00:00"},
    {**LIKE, "occurred_at": "yesterday"},
    {**LIKE, "occurred_at": "1969-12-31T23:59:59Z"},
    {**LIKE, "event_id": "7"},
    {**LIKE, "comment": "hi"},
    {"actor_id": 1, "kind": "like"},
]


@pytest.mark.parametrize("body", GOOD_REQUESTS, ids=json.dumps)
def test_a_request_within_bounds_is_accepted(body: dict[str, Any]) -> None:
    RecommendationRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("body", BAD_REQUESTS, ids=json.dumps)
def test_a_request_out_of_bounds_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RecommendationRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("body", BAD_INTERACTIONS, ids=json.dumps)
def test_an_impossible_interaction_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InteractionRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (RecommendationRequest, {"user_id": "42"}, "user_id"),
        (InteractionRequest, {**LIKE, "actor_id": "42"}, "actor_id"),
        (InteractionRequest, {**LIKE, "target_id": "42"}, "target_id"),
    ],
)
def test_an_id_in_quotation_marks_is_refused_with_its_field_and_what_to_send(
    model: type[BaseModel], body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(body))
    refusal = invalid(caught.value)
    assert refusal.status == 422
    assert str(refusal) == (
        f"The request is not valid: `{field}`: Input should be a valid integer, not a string: send the number without "
        "quotation marks."
    )
    assert [detail["field"] for detail in refusal.details] == [field]
    assert "42" not in str(refusal)


def test_an_interaction_needs_three_fields_only() -> None:
    assert InteractionRequest.model_validate_json(json.dumps(LIKE)).event_id is None
