"""How the columns of somebody's export become the contract's columns: `mapping.yaml`, validated before any row is read.

A source column the file does not have is refused by name; so is any key this module does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.ingest.errors import RefusedMapping

Scalar = str | int | float | bool


class Source(BaseModel):
    """Where one contract column comes from: a source column, or one constant for all rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = Field(None, min_length=1, description="name of the source column")
    constant: Scalar | None = Field(None, description="one value for every row")
    values: dict[str, str] | None = Field(None, description="source value -> contract value; others are quarantined")
    separator: str | None = Field(None, min_length=1, description="splits a list column")
    format: str | None = Field(None, description="strptime format of a date or time, e.g. `%d.%m.%Y`")
    unit: Literal["s", "ms", "us", "ns"] | None = Field(None, description="a numeric time's unit since 1970")
    timezone: str = Field("UTC", description="zone of times that carry none")
    hash: bool = Field(False, description="derive the id from the source's own (not integer) id")

    @field_validator("values", mode="before")
    @classmethod
    def _keys_are_text(cls, values: object) -> object:
        return {str(key): value for key, value in values.items()} if isinstance(values, dict) else values

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"`{timezone}` is not a time zone; give a name such as `Europe/Paris`") from error
        return timezone

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either `column` or `constant`")
        return self


class Rating(BaseModel):
    """A numeric rating that stands for like or pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(min_length=1)
    like_at_or_above: float = Field(allow_inf_nan=False)


def _from_shorthand(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


Origin = Annotated[Source, BeforeValidator(_from_shorthand)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def origins(self) -> dict[str, Source]:
        """Return contract column -> source, in declaration order, only what the mapping names."""
        found: dict[str, Source] = {}
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            if isinstance(value, Source):
                found[name] = value
        return found


class PeopleMapping(_Table):
    """Source of each column of `duet.users`; columns not named here become attributes."""

    user_id: Origin | None = None
    birth_date: Origin | None = None
    gender: Origin | None = None
    seeking: Origin | None = None
    age_min: Origin | None = None
    age_max: Origin | None = None
    latitude: Origin | None = None
    longitude: Origin | None = None
    max_distance_km: Origin | None = None
    interests: Origin | None = None
    bio: Origin | None = None
    created_at: Origin | None = None
    last_active_at: Origin | None = None
    visible: Origin | None = None
    ignore: tuple[str, ...] = Field((), description="source columns that are not imported")


class InteractionsMapping(_Table):
    """Source of each column of `duet.interactions`; other source columns are not imported."""

    event_id: Origin | None = None
    actor_id: Origin | None = Field(None, alias="actor")
    target_id: Origin | None = Field(None, alias="target")
    kind: Origin | None = None
    occurred_at: Origin | None = Field(None, alias="time")
    rating: Rating | None = None

    @model_validator(mode="after")
    def _kind_or_rating(self) -> Self:
        if self.kind is not None and self.rating is not None:
            raise ValueError("give either `kind` or `rating`")
        return self


class Mapping(BaseModel):
    """The whole of `mapping.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: PeopleMapping = PeopleMapping()
    interactions: InteractionsMapping = InteractionsMapping()
    null_values: tuple[str, ...] = Field((), description="text that means `no value`, e.g. `NA`")
    encoding: str | None = Field(None, description="of CSV files; found out when absent")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="of CSV files; found out when absent")


def load_mapping(path: Path) -> Mapping:
    """Read and validate a mapping; raises RefusedMapping with the first thing that is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedMapping(f"The mapping `{path}` cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise RefusedMapping(f"The mapping `{path}` is not YAML: {' '.join(str(error).split())}.") from error
    try:
        return Mapping.model_validate(document if document is not None else {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        message = first["msg"].removeprefix("Value error, ").lower()
        raise RefusedMapping(f"The mapping `{path}` is wrong at `{where}`: {message}.") from error


# What an export calls these columns when it follows the contract without a mapping.
_ALIASES = {"actor": "actor_id", "target": "target_id", "time": "occurred_at", "timestamp": "occurred_at"}


def resolve(
    table: PeopleMapping | InteractionsMapping, header: Sequence[str], path: Path
) -> tuple[dict[str, Source], list[str]]:
    """Return contract column -> source and the columns left over; raises RefusedMapping for an unknown column."""
    contract = [name for name in type(table).model_fields if name not in {"ignore", "rating"}]
    mapped = table.origins()
    named = {source.column for source in mapped.values() if source.column is not None}
    if "user_id" in mapped and mapped["user_id"].column is None:
        raise RefusedMapping("The mapping gives every person the same `user_id`; name the column that holds it.")
    rating = table.rating if isinstance(table, InteractionsMapping) else None
    ignored = set(table.ignore) if isinstance(table, PeopleMapping) else set()
    if rating is not None:
        named.add(rating.column)
    for column in sorted(named | ignored):
        if column not in header:
            raise RefusedMapping(
                f"The mapping names the column `{column}`, which `{path.name}` does not have; "
                f"it has {', '.join(f'`{name}`' for name in header)}."
            )
    origins = dict(mapped)
    for column in header:
        name = column if isinstance(table, PeopleMapping) else _ALIASES.get(column, column)
        if name in contract and name not in origins and column not in named | ignored:
            if name == "kind" and rating is not None:
                continue
            origins[name] = Source(column=column, constant=None)
            named.add(column)
    return origins, [column for column in header if column not in named | ignored]
