"""The shapes of the HTTP API: what a request may say and what an answer contains.

Requests are strict: no unknown field, no coercion, bounded numbers and lists, finite floats. Answers are frozen.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from feature_repo.kinds import Kind
from infra.clock import EARLIEST
from serving.api.request_ids import PATTERN
from serving.people.names import MAX_NUMBER, PersonId

INTERACTIONS = "/v1/interactions"
INTERACTIONS_BATCH = "/v1/interactions:batch"
MAX_LIMIT = 100
MAX_ROWS = 1000
"""Most rows of a batch."""

UserId = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_NUMBER,
        description="A person's id; one beyond 2^53 must be read as BigInt in JavaScript.",
        examples=[42],
        json_schema_extra={"format": "int64"},
    ),
]
Int64 = NDArray[np.int64]


OfThisRequest = Annotated[str, Field(pattern=f"^{PATTERN}$", description="The id of this request, as in the header.")]


class RequestModel(BaseModel):
    """A body that is sent: no unknown field, no coercion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AnswerModel(BaseModel):
    """A body that is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def judged_alone(model: str) -> JsonDict:
    """Return the schema of a row of a batch: what is no `model` is no fault of the request, but refused alone."""
    return {"anyOf": [{"$ref": f"#/components/schemas/{model}"}, {"type": "object"}]}


class RowFault(AnswerModel):
    """Why one row of a batch was refused."""

    code: str = Field(description="Stable code to program against.", examples=["out_of_range"])
    field: str = Field(description="Name of the field; empty for the whole row.", examples=["birth_date"])
    message: str = Field(description="What it must be.")


class InteractionRequest(RequestModel):
    """What one person did about another, once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"actor_id": 42, "target_id": 7, "kind": "like"},
                {
                    "event_id": "8f14e45f-ceea-467f-a0e6-0242ac120002",
                    "actor_id": 42,
                    "target_id": 7,
                    "kind": "pass",
                    "occurred_at": "2026-01-31T12:00:00Z",
                    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
                },
            ]
        }
    )

    event_id: UUID | None = Field(
        None, description="Idempotency key: send the same one when you retry. Made for you when absent."
    )
    actor_id: UserId
    target_id: UserId
    kind: Kind = Field(
        description="`unlike` takes back the actor's like of the target, never a pass. `unblock` ends the actor's "
        "block of the target, and the likes of both from before with it: they match again only when both like again. "
        "After either, who is neither decided on nor separated may be shown again."
    )
    occurred_at: AwareDatetime | None = Field(
        None,
        description="When it happened, with a zone; now when absent. What lies more than five seconds ahead of the "
        "database's clock is refused, and what lies less ahead counts as now.",
    )
    request_id: UUID | None = Field(
        None, description="`request_id` from the body of the recommendations that led to it."
    )

    @field_validator("target_id", mode="after")
    @classmethod
    def _is_another(cls, target: object, info: ValidationInfo) -> object:
        if target == info.data.get("actor_id"):
            raise PydanticCustomError("same_person", "must be somebody else than `actor_id`")
        return target

    @field_validator("occurred_at", mode="after")
    @classmethod
    def _is_late_enough(cls, at: datetime | None) -> datetime | None:
        if at is not None and at < EARLIEST:
            raise PydanticCustomError("too_early", "must not be before {year}", {"year": EARLIEST.year})
        return at


class NamedInteractionRequest(InteractionRequest):
    """The same where people are named by text."""

    actor_id: PersonId  # type: ignore[assignment]
    target_id: PersonId  # type: ignore[assignment]


class StoredInteraction(AnswerModel):
    """The interaction is durable."""

    event_id: UUID
    status: Literal["stored", "known"] = Field(description="`known` when this event id had been stored before.")
    matched: bool = Field(
        description="Whether the two are a match now, after a like: the latest decision of each about the other is a "
        "like, and neither has blocked or reported the other."
    )
    request_id: OfThisRequest


class InteractionBatch(RequestModel):
    """Many interactions at once; each is judged alone, those of one pair in their order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "interactions": [
                        {"actor_id": 42, "target_id": 7, "kind": "like"},
                        {"actor_id": 42, "target_id": 8, "kind": "pass"},
                    ]
                }
            ]
        }
    )

    interactions: Annotated[
        list[Annotated[dict[str, JsonValue], Field(json_schema_extra=judged_alone("NamedInteractionRequest"))]],
        Field(min_length=1, max_length=MAX_ROWS),
    ]


class InteractionResult(AnswerModel):
    """What became of one interaction of a batch."""

    index: int = Field(ge=0, description="Place in the request, from 0.")
    event_id: UUID | None = Field(description="Its id, yours or ours; null where yours was none.")
    status: Literal["stored", "known", "refused", "failed"] = Field(
        description="`known` when this event id had been stored before; `failed` when the database did not answer: "
        "send it again with the same `event_id`."
    )
    matched: bool = Field(description="Whether the two are a match now, after a like.")
    error: RowFault | None = Field(description="Why it was refused or failed; null otherwise.")


class InteractionResults(AnswerModel):
    """What became of each interaction of a batch; those stored or known are durable."""

    results: list[InteractionResult]
    request_id: OfThisRequest


class ErrorDetail(AnswerModel):
    """One thing wrong with a request."""

    field: str = Field(description="Path of the field, dots between names; empty for the whole body.")
    message: str


class ErrorBody(AnswerModel):
    """What went wrong."""

    code: str = Field(description="Stable code to program against.", examples=["invalid_request"])
    message: str = Field(description="One sentence for a person.")
    details: list[ErrorDetail]


class ErrorEnvelope(AnswerModel):
    """The one shape of every error."""

    error: ErrorBody
    request_id: OfThisRequest
