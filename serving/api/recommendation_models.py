"""The shapes of recommendations: what such a request may say and what its answer contains."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

import numpy as np
from pydantic import (
    ConfigDict,
    FailFast,
    Field,
    GetPydanticSchema,
    PlainValidator,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from serving.api.models import MAX_LIMIT, AnswerModel, ErrorBody, Int64, OfThisRequest, RequestModel, UserId
from serving.experiments.assignment import Variant
from serving.people.names import PersonId, PersonIds
from serving.reasons import CandidateSource, Reason, Why
from serving.recommend.paging import MAX_CURSOR

RECOMMENDATIONS = "/v1/recommendations"

RECOMMENDATIONS_BATCH = "/v1/recommendations:batch"

OrderName = Literal["ranker", "retrieval", "item_knn", "user_knn", "spectral", "ease", "popular", "blend", "similarity"]

MAX_EXCLUDED = 1000

MAX_ASKERS = 200

_ListedIds = Annotated[list[UserId], Field(max_length=MAX_EXCLUDED), FailFast()]


def _as_array(_source: object, handler: Any) -> core_schema.CoreSchema:
    return core_schema.no_info_after_validator_function(lambda ids: np.array(ids, dtype=np.int64), handler(_ListedIds))


ExcludedIds = Annotated[Int64, GetPydanticSchema(_as_array)]

Age = Annotated[int, Field(ge=18, le=120, description="Whole years.")]

Interest = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

MAX_VALUES = 100

_MOST = 1e30

_LONGEST = 1000


def _exact(value: object, check: ValidatorFunctionWrapHandler) -> float:
    checked: float = check(value)
    return value if isinstance(value, int) else checked  # a float has no room for a whole number beyond 2^53


Number = Annotated[float, Field(ge=-_MOST, le=_MOST, allow_inf_nan=False), WrapValidator(_exact)]


def _checked_value(value: object) -> float | str:
    if type(value) in {int, float} and -_MOST <= value <= _MOST:  # type: ignore[operator]
        return value  # type: ignore[return-value]
    if isinstance(value, str) and len(value) <= _LONGEST and "\x00" not in value:
        return value
    raise PydanticCustomError(
        "attribute_value",
        f"must be a number from -1e30 to 1e30, or text of at most {_LONGEST} characters without NUL; ask for true or "
        "false with `is`",
    )


Value = Annotated[
    float | str,
    PlainValidator(_checked_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": -_MOST, "maximum": _MOST},
                {"type": "string", "maxLength": _LONGEST},
            ]
        }
    ),
]


class AttributeFilter(RequestModel):
    """What an attribute must be: a number within bounds, one of a few numbers or texts, or true or false."""

    gte: Number | None = Field(None, description="A number, at least this.")
    lte: Number | None = Field(None, description="A number, at most this.")
    among: Annotated[list[Value], Field(min_length=1, max_length=MAX_VALUES)] | None = Field(
        None, alias="in", description="One of these: numbers, or texts as they were stored."
    )
    flag: bool | None = Field(None, alias="is", description="True or false, as it was stored.")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        bounded = self.gte is not None or self.lte is not None
        if not bounded and self.among is None and self.flag is None:
            raise ValueError("name at least one of `gte`, `lte`, `in` and `is`")
        if self.flag is not None and (bounded or self.among is not None):
            raise ValueError("`is` must stand alone: it asks for true or false")
        if self.among is not None and 0 < len(self.texts) < len(self.among):
            raise ValueError("`in` must hold numbers or texts, not both")
        if bounded and self.texts:
            raise ValueError("bounds must not stand beside texts: they ask for a number")
        if self.gte is not None and self.lte is not None and self.gte > self.lte:
            raise ValueError("gte must not be above lte")
        return self

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """Return the numbers one of which it must be; None where that is not asked."""
        return None if self.among is None else tuple(v for v in self.among if not isinstance(v, str)) or None

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts one of which it must be; none where that is not asked."""
        return tuple(value for value in self.among or () if isinstance(value, str))

    @property
    def traits(self) -> tuple[str | bool, ...]:
        """Return the texts or flags one of which it must be; none where a number is asked for."""
        return self.texts if self.flag is None else (self.flag,)


class Filters(RequestModel):
    """What the requester asks for on top of their own stored preferences; it can only narrow the answer."""

    age_min: Age | None = Field(None, description="Youngest candidate, whole years.")
    age_max: Age | None = Field(None, description="Oldest candidate, whole years.")
    max_distance_km: Annotated[float, Field(gt=0, le=20_100, allow_inf_nan=False)] | None = Field(
        None, description="Farthest candidate, km; people without a known place are left out."
    )
    interests_any: Annotated[list[Interest], Field(min_length=1, max_length=20)] | None = Field(
        None, description="Candidates must share at least one of these interests."
    )
    attributes: Annotated[dict[str, AttributeFilter], Field(min_length=1, max_length=10)] | None = Field(
        None,
        description="By name, what attributes must be, as they were stored; who lacks one is left out. Among the "
        "numbers of an attribute that is a feature, true counts as 1 and false as 0.",
    )

    @model_validator(mode="after")
    def _ages_in_order(self) -> Self:
        if self.age_min is not None and self.age_max is not None and self.age_min > self.age_max:
            raise ValueError("age_min must not be above age_max")
        return self


class ListRequest(RequestModel):
    """How many people somebody wants to see, and which."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Most people in the answer.")] = 20
    filters: Filters | None = None
    explain: bool = Field(default=False, description="Whether each item says why it was recommended.")
    exclude: ExcludedIds | None = Field(
        None, description="People who must not be in this answer, beside those whom nobody may show."
    )
    cursor: Annotated[str, Field(max_length=MAX_CURSOR)] | None = Field(
        None, description="`next` of the page before, with the same request: for who comes after those shown so far."
    )

    def with_ids(self, ids: Int64) -> Self:
        """Return the request with these people, int64, to exclude."""
        return self.model_copy(update={"exclude": ids})


class RecommendationRequest(ListRequest):
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
                {
                    "user_id": 42,
                    "filters": {
                        "attributes": {
                            "height_cm": {"gte": 165},
                            "children": {"in": [0, 1]},
                            "smoker": {"is": False},
                            "city": {"in": ["Ghent", "Bruges"]},
                        }
                    },
                    "exclude": [7, 9],
                },
            ]
        }
    )

    user_id: UserId


class NamedRecommendationRequest(RecommendationRequest):
    """The same where people are named by text."""

    user_id: PersonId  # type: ignore[assignment]  # resolved before anything else sees it
    exclude: Annotated[PersonIds, Field(max_length=MAX_EXCLUDED)] | None = Field(  # type: ignore[assignment]
        None, description=RecommendationRequest.model_fields["exclude"].description
    )

    def with_ids(self, ids: Int64) -> Self:
        """Return the request with these people, int64, to exclude."""
        return self.model_copy(update={"exclude": ids.tolist()})


class Influence(AnswerModel):
    """How much one feature moved a probability."""

    feature: str = Field(description="Name of the ranking feature.", examples=["shared_interests"])
    contribution: float = Field(description="Change of the log-odds that the feature caused.")


class RecommendationReason(AnswerModel):
    """Why somebody was recommended, as a person reads it and as a program does."""

    code: Why = Field(description="Stable code, to show words of your own.", examples=["near"])
    text: str = Field(description="A short sentence to the requester.", examples=["They live within 10 km of you."])
    value: int | None = Field(default=None, description="The number in the sentence; null where there is none.")


class Explanation(AnswerModel):
    """The strongest features behind both directed probabilities, among those that the requester may know of.

    Names are from the side of who asks in both: `requester_` is always them.
    """

    p_like: list[Influence] = Field(description="Behind `p_like`, strongest first.")
    p_liked_back: list[Influence] = Field(description="Behind `p_liked_back`, strongest first.")
    reasons: list[RecommendationReason] = Field(
        description="Up to three reasons in words, strongest first, of what the requester may know; none where "
        "nothing that may be said speaks for this person."
    )


class RecommendedPerson(AnswerModel):
    """One recommended person."""

    user_id: PersonId
    position: int = Field(ge=1, le=MAX_LIMIT, description="Place in the answer, 1 is first.")
    score: float = Field(description="What the answer is ordered by, before exploration.")
    p_like: Share | None = Field(description="Probability that the requester likes this person; null below level 1.")
    p_liked_back: Share | None = Field(
        description="Probability that this person likes the requester; null below level 1."
    )
    sources: list[CandidateSource] = Field(description="Which sources found this person.")
    explored: bool = Field(description="Whether the place was given by exploration, not by the order.")
    explanation: Explanation | None = Field(default=None, description="Present when `explain` was asked at level 1.")


class Recommendations(AnswerModel):
    """A ranked list of people, and how it was made."""

    items: list[RecommendedPerson]
    release: str | None = Field(description="The release that answered; null without a model.", examples=["e3-i3-r2"])
    variant: Variant = Field(description="The arm of the experiment that answered.")
    experiment: str | None = Field(description="The experiment that chose the arm; null while none is active.")
    cached: bool = Field(
        description="Whether the list was made for another answer, and its safety checked anew for this one."
    )
    order: OrderName | None = Field(
        description="What `score` is: the ranker's reciprocal score, or that of the simpler order that a release found "
        "to be better; null below level 1.",
        examples=["ranker"],
    )
    level: Literal[1, 2, 3, 4] = Field(description="1 full, 2 content, 3 random eligible, 4 empty.")
    level_name: Literal["full", "content", "random", "empty"]
    reason: Reason | None = Field(
        description="Why the level is not 1, or why the challenger did not answer; null otherwise."
    )
    message: str | None = Field(description="The reason as a sentence; null at level 1.")
    next: str | None = Field(description="`cursor` of the next page; null when there is nobody left.")
    degraded: list[str] = Field(description="Stages that did without a dependency or failed.")
    timings_ms: dict[str, float] = Field(description="Milliseconds per stage, and `total`.")
    request_id: UUID = Field(
        description="This answer's own id, made here whatever the header says: what was shown is logged under it, and "
        "an interaction names it as its `request_id`."
    )


class RecommendationBatch(RequestModel):
    """Whom to recommend people to, all of them on the same terms."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": [42, 43], "limit": 5}]})

    user_ids: Annotated[list[UserId], Field(min_length=1, max_length=MAX_ASKERS)]
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Most people in each answer.")] = 20
    filters: Filters | None = None


class NamedRecommendationBatch(RecommendationBatch):
    """The same where people are named by text."""

    user_ids: Annotated[list[PersonId], Field(min_length=1, max_length=MAX_ASKERS)]  # type: ignore[assignment]


class RecommendationResult(AnswerModel):
    """The answer for one person of a batch, or why there is none."""

    user_id: PersonId
    answer: Recommendations | None = Field(description="What a call for this person alone answers; null with an error.")
    error: ErrorBody | None = Field(description="What a call for this person alone is refused with; null otherwise.")


class RecommendationResults(AnswerModel):
    """An answer for each person, in the order of the request."""

    results: list[RecommendationResult]
    request_id: OfThisRequest
