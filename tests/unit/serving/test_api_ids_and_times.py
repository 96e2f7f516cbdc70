"""What the API says and takes of ids and times: 64-bit ids, and the same first instant as every import."""

import json
from datetime import datetime, timedelta

import pytest
from pydantic import ValidationError

from infra.clock import EARLIEST
from serving.api.models import InteractionRequest, NamedInteractionRequest
from serving.api.recommendation_models import RecommendedPerson


def test_the_document_says_that_ids_have_64_bits() -> None:
    schema = InteractionRequest.model_json_schema()["properties"]["actor_id"]
    assert (schema["type"], schema["format"]) == ("integer", "int64")
    assert "BigInt" in schema["description"]


def test_the_document_says_that_ids_may_be_text_where_javascript_would_round_them() -> None:
    for model, field in ((NamedInteractionRequest, "actor_id"), (RecommendedPerson, "user_id")):
        schema = model.model_json_schema()["properties"][field]
        number, text = schema["anyOf"]
        assert (number["type"], number["format"], text["type"], text["maxLength"]) == (
            "integer",
            "int64",
            "string",
            128,
        )
        assert "JavaScript" in schema["description"]


def test_nothing_happened_before_the_first_instant_that_an_import_takes() -> None:
    def taken(at: datetime) -> InteractionRequest:
        asked = {"actor_id": 1, "target_id": 2, "kind": "like", "occurred_at": at.isoformat()}
        return InteractionRequest.model_validate_json(json.dumps(asked))

    assert taken(EARLIEST).occurred_at == EARLIEST
    with pytest.raises(ValidationError, match="must not be before 1970"):
        taken(EARLIEST - timedelta(microseconds=1))
