"""The shapes of the HTTP API: what a request may say and what an answer contains.

Requests are strict: no unknown field, no coercion, bounded numbers and lists, finite floats. Answers are frozen.
"""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from feature_repo.kinds import Kind
from infra.clock import EARLIEST
from serving.experiments.assignment import Variant
from serving.reasons import Reason, Source
from serving.request_ids import PATTERN

RECOMMENDATIONS = "/v1/recommendations"
INTERACTIONS = "/v1/interactions"
MAX_USER_ID = 2**63 - 1
MAX_LIMIT = 100

UserId = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_USER_ID,
        description="A person's id; one beyond 2^53 must be read as BigInt in JavaScript.",
        examples=[42],
        json_schema_extra={"format": "int64"},
    ),
]
Age = Annotated[int, Field(ge=18, le=120, description="Whole years.")]
Interest = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(_Request):
    """What the requester asks for on top of their own stored preferences; it can only narrow the answer."""

    age_min: Age | None = Field(None, description="Youngest candidate, whole years.")
    age_max: Age | None = Field(None, description="Oldest candidate, whole years.")
    max_distance_km: Annotated[float, Field(gt=0, le=20_100, allow_inf_nan=False)] | None = Field(
        None, description="Farthest candidate, km; people without a known place are left out."
    )
    interests_any: Annotated[list[Interest], Field(min_length=1, max_length=20)] | None = Field(
        None, description="Candidates must share at least one of these interests."
    )

    @model_validator(mode="after")
    def _ages_in_order(self) -> Self:
        if self.age_min is not None and self.age_max is not None and self.age_min > self.age_max:
            raise ValueError("age_min must not be above age_max")
        return self


class RecommendationRequest(_Request):
    """Who asks, how many people they want to see, and with which filters."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": 42},
                {
                    "user_id": 42,
                    "limit": 10,
                    "filters": {"age_min": 25, "age_max": 40, "max_distance_km": 50.0, "interests_any": ["hiking"]},
                    "explain": True,
                },
            ]
        }
    )

    user_id: UserId
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Most people in the answer.")] = 20
    filters: Filters | None = None
    explain: bool = Field(default=False, description="Whether each item names its strongest features.")


class Influence(_Answer):
    """How much one feature moved a probability."""

    feature: str = Field(description="Name of the ranking feature.", examples=["shared_interests"])
    contribution: float = Field(description="Change of the log-odds that the feature caused.")


class Explanation(_Answer):
    """The strongest features behind both directed probabilities, among those that the requester may know of.

    Names are from the side of who asks in both: `requester_` is always them.
    """

    p_like: list[Influence] = Field(description="Behind `p_like`, strongest first.")
    p_liked_back: list[Influence] = Field(description="Behind `p_liked_back`, strongest first.")


class RecommendedPerson(_Answer):
    """One recommended person."""

    user_id: UserId
    position: int = Field(ge=1, le=MAX_LIMIT, description="Place in the answer, 1 is first.")
    score: float = Field(description="What the answer is ordered by, before exploration.")
    p_like: Share | None = Field(description="Probability that the requester likes this person; null below level 1.")
    p_liked_back: Share | None = Field(
        description="Probability that this person likes the requester; null below level 1."
    )
    sources: list[Source] = Field(description="Which sources found this person.")
    explanation: Explanation | None = Field(default=None, description="Present when `explain` was asked at level 1.")


class Recommendations(_Answer):
    """A ranked list of people, and how it was made."""

    items: list[RecommendedPerson]
    release: str | None = Field(description="The release that answered; null without a model.", examples=["e3-i3-r2"])
    variant: Variant = Field(description="The arm of the experiment that answered.")
    experiment: str | None = Field(description="The experiment that chose the arm; null while none is active.")
    cached: bool = Field(
        description="Whether the list was made for another answer, and its safety checked anew for this one."
    )
    order: Literal["ranker", "retrieval"] | None = Field(
        description="What `score` is: the ranker's reciprocal score, or the retrieval score where a release found that "
        "to order better; null below level 1.",
        examples=["ranker"],
    )
    level: Literal[1, 2, 3, 4] = Field(description="1 full, 2 content, 3 random eligible, 4 empty.")
    level_name: Literal["full", "content", "random", "empty"]
    reason: Reason | None = Field(
        description="Why the level is not 1, or why the challenger did not answer; null otherwise."
    )
    message: str | None = Field(description="The reason as a sentence; null at level 1.")
    degraded: list[str] = Field(description="Stages that did without a dependency or failed.")
    timings_ms: dict[str, float] = Field(description="Milliseconds per stage, and `total`.")
    request_id: UUID = Field(
        description="This answer's own id, made here whatever the header says: what was shown is logged under it, and "
        "an interaction names it as its `request_id`."
    )


class InteractionRequest(_Request):
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
    kind: Kind
    occurred_at: AwareDatetime | None = Field(
        None,
        description="When it happened, with a zone; now when absent. What lies more than five seconds ahead of the "
        "database's clock is refused, and what lies less ahead counts as now.",
    )
    request_id: UUID | None = Field(
        None, description="`request_id` from the body of the recommendations that led to it."
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.actor_id == self.target_id:
            raise ValueError("actor_id and target_id must differ")
        if self.occurred_at is not None and self.occurred_at < EARLIEST:
            raise ValueError(f"occurred_at must not be before {EARLIEST.year}")
        return self


class StoredInteraction(_Answer):
    """The interaction is durable."""

    event_id: UUID
    status: Literal["stored", "known"] = Field(description="`known` when this event id had been stored before.")
    matched: bool = Field(
        description="Whether the two are a match now, after a like: the latest decision of each about the other is a "
        "like, and neither has blocked or reported the other."
    )
    request_id: str = Field(pattern=f"^{PATTERN}$", description="The id of this request, as in the header.")


class ErrorDetail(_Answer):
    """One thing wrong with a request."""

    field: str = Field(description="Path of the field, dots between names; empty for the whole body.")
    message: str


class ErrorBody(_Answer):
    """What went wrong."""

    code: str = Field(description="Stable code to program against.", examples=["invalid_request"])
    message: str = Field(description="One sentence for a person.")
    details: list[ErrorDetail]


class ErrorEnvelope(_Answer):
    """The one shape of every error."""

    error: ErrorBody
    request_id: str = Field(pattern=f"^{PATTERN}$", description="The id of this request, as in the header.")
