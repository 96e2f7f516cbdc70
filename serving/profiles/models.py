"""The shapes of the calls about people. Types only: what a value may be, the contract of imports says."""

from datetime import date
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, ConfigDict, Field, JsonValue

from feature_repo.contract.columns import MAX_LABEL, MAX_TEXT
from feature_repo.contract.people import NUMBERS, OLDEST, YOUNGEST
from serving.api.models import MAX_ROWS, AnswerModel, OfThisRequest, RequestModel, RowFault, UserId, judged_alone
from serving.people.names import PersonId

PERSON = "/v1/people/{user_id}"
HIDE = f"{PERSON}/hide"
SHOW = f"{PERSON}/show"
PEOPLE_BATCH = "/v1/people:batch"
MAX_ATTRIBUTES = 100
PROFILE_EXAMPLE: Final[dict[str, JsonValue]] = {
    "birth_date": "1994-05-17",
    "gender": "woman",
    "seeking": ["man"],
    "age_min": 27,
    "age_max": 40,
    "latitude": 51.05,
    "longitude": 3.72,
    "max_distance_km": 50.0,
    "interests": ["hiking", "jazz"],
    "attributes": {"height_cm": 172},
}

_Age = Annotated[int, Field(json_schema_extra={"minimum": YOUNGEST, "maximum": OLDEST})]
_Label = Annotated[str, Field(json_schema_extra={"maxLength": MAX_LABEL})]


def _bounds(name: str) -> dict[str, JsonValue]:
    low, high = NUMBERS[name]
    return {"minimum": low, "maximum": high}


BIRTH_DATE = f"Of somebody {YOUNGEST} to {OLDEST} years old."
LABELS = f"At most 100 different ones of at most {MAX_LABEL} characters, kept in lower case."


class Profile(RequestModel):
    """What a person says about themselves and wishes for; what an import takes, by the same rules."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                PROFILE_EXAMPLE,
                {"interests": ["chess"]},
            ]
        }
    )

    birth_date: date | None = Field(None, description=BIRTH_DATE)
    gender: _Label | None = Field(None, description="Any label, kept in lower case; null when it is not told.")
    seeking: list[_Label] | None = Field(None, description=f"Genders; empty seeks all. {LABELS}")
    age_min: _Age | None = Field(None, description="Youngest candidate, whole years; not above `age_max`.")
    age_max: _Age | None = Field(None, description="Oldest candidate, whole years.")
    latitude: float | None = Field(
        None, json_schema_extra=_bounds("latitude"), description="Degrees; only together with `longitude`."
    )
    longitude: float | None = Field(
        None, json_schema_extra=_bounds("longitude"), description="Degrees; only together with `latitude`."
    )
    max_distance_km: float | None = Field(
        None,
        json_schema_extra=_bounds("max_distance_km"),
        description="Farthest candidate, km; somebody without a known place is not too far.",
    )
    interests: list[_Label] | None = Field(None, description=LABELS)
    bio: Annotated[str, Field(json_schema_extra={"maxLength": MAX_TEXT})] | None = Field(
        None, description="Free text, of which only the length is a feature."
    )
    created_at: AwareDatetime | None = Field(None, description="When they signed up, with a zone; now when absent.")
    last_active_at: AwareDatetime | None = Field(
        None, description="When they were last there, with a zone; an earlier one than is known changes nothing."
    )
    visible: bool = Field(
        default=True,
        description="Whether they may be shown to others; absent, it stays as it is (true at first).",
    )
    attributes: Annotated[dict[str, JsonValue], Field(max_length=MAX_ATTRIBUTES)] = Field(
        default_factory=dict,
        description="Anything else by name. The first 24 names with numbers become features; null takes one away.",
    )


class ProfileRow(Profile):
    """One person of a batch."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": 42, "interests": ["chess"]}]})

    user_id: UserId


class NamedProfileRow(ProfileRow):
    """The same for a person who is named by text."""

    user_id: PersonId  # type: ignore[assignment]


class PeopleBatch(RequestModel):
    """Many people at once; each is judged alone."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"people": [{"user_id": 42, "gender": "woman"}, {"user_id": 43}]}]}
    )

    people: Annotated[
        list[Annotated[dict[str, JsonValue], Field(json_schema_extra=judged_alone("NamedProfileRow"))]],
        Field(min_length=1, max_length=MAX_ROWS),
    ]


class StoredPerson(AnswerModel):
    """The person is durable, and in the next answers."""

    user_id: PersonId
    status: Literal["created", "updated", "unchanged"]
    request_id: OfThisRequest


class PersonResult(AnswerModel):
    """What became of one person of a batch."""

    index: int = Field(ge=0, description="Place in the request, from 0.")
    user_id: PersonId | None = Field(description="Null where the row named nobody.")
    status: Literal["created", "updated", "unchanged", "refused", "failed"] = Field(
        description="`failed` when the database did not answer: send it again."
    )
    error: RowFault | None = Field(description="Why it was refused or failed; null otherwise.")


class PeopleResults(AnswerModel):
    """What became of each person of a batch; those not refused are durable."""

    results: list[PersonResult]
    request_id: OfThisRequest


class Person(AnswerModel):
    """A person as they are stored."""

    user_id: PersonId
    birth_date: date | None
    gender: str | None
    seeking: list[str]
    age_min: int | None
    age_max: int | None
    latitude: float | None
    longitude: float | None
    max_distance_km: float | None
    interests: list[str]
    bio: str | None
    visible: bool
    attributes: dict[str, JsonValue]
    created_at: AwareDatetime
    last_active_at: AwareDatetime | None
    updated_at: AwareDatetime
    request_id: OfThisRequest
