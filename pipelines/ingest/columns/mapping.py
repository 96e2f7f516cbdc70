"""How the columns of somebody's export become the contract's columns: what `mapping.yaml` may say.

A key that its column would not obey is refused here, before any row is read. `mapping_file` reads the file and
`resolution` holds it against the columns of a source.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from feature_repo.contract.columns import MAX_LABEL, spelling
from feature_repo.kinds import KINDS
from pipelines.ingest.files.formats import check_format, knows_zone, reads_zone

Scalar = str | int | float | bool

_TIME_KEYS = frozenset({"format", "unit", "timezone"})
# Which keys beside `column` and `constant` each contract column obeys; the others obey none.
_OBEYED: MappingType[str, frozenset[str]] = {
    "user_id": frozenset({"hash"}),
    "birth_date": frozenset({"format", "unit"}),  # a date is a date in every zone
    "gender": frozenset({"values"}),
    "seeking": frozenset({"values", "separator"}),
    "interests": frozenset({"values", "separator"}),
    "created_at": _TIME_KEYS,
    "last_active_at": _TIME_KEYS,
    "visible": frozenset({"values"}),
    "event_id": frozenset({"hash"}),
    "actor_id": frozenset({"hash"}),
    "target_id": frozenset({"hash"}),
    "kind": frozenset({"values"}),
    "occurred_at": _TIME_KEYS,
}
_MEANINGS: MappingType[str, tuple[str, ...]] = {"kind": KINDS, "visible": ("true", "false", "yes", "no", "1", "0")}
_DELIMITERS = {"tab": "\t", "\\t": "\t"}


class ColumnSource(BaseModel):
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

    @field_validator("values")
    @classmethod
    def _values_are_labels(cls, values: dict[str, str] | None) -> dict[str, str] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("`values` is empty; give at least one source value and what it means")
        labels = {key: value.strip().lower() for key, value in values.items()}
        first: dict[str, str] = {}
        for key, label in labels.items():
            other = first.setdefault(spelling(key), key)
            if labels[other] != label:
                raise ValueError(
                    f"`{other}` and `{key}` are one value, which cannot mean both `{labels[other]}` and `{label}`; "
                    "leave one of them out"
                )
            if not label or len(label) > MAX_LABEL or "\x00" in label:
                raise ValueError(f"what `{key}` means must be text of 1 to {MAX_LABEL} characters")
        return labels

    @field_validator("format")
    @classmethod
    def _format_can_be_read(cls, text: str | None) -> str | None:
        return None if text is None else check_format(text)

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, timezone: str) -> str:
        named = {name.lower(): name for name in available_timezones()}.get(timezone.strip().lower())
        if named is None or not knows_zone(named):
            raise ValueError(f"`{timezone}` is not a time zone; give a name such as `Europe/Paris`")
        return named

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.column is None) == (self.constant is None):
            raise ValueError("give either `column` or `constant`")
        if self.format is not None and self.unit is not None:
            raise ValueError("give either `format` (for text) or `unit` (for numbers since 1970), not both")
        if "timezone" in self.model_fields_set and self.unit is not None:
            raise ValueError("a number of `unit` since 1970 is in UTC and obeys no `timezone`; leave one of them out")
        if "timezone" in self.model_fields_set and self.format is not None and reads_zone(self.format):
            raise ValueError(f"the format `{self.format}` reads a zone from the text; leave `timezone` out")
        return self


class Rating(BaseModel):
    """A numeric rating that stands for like or pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(min_length=1)
    like_at_or_above: float = Field(allow_inf_nan=False)


def _from_shorthand(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Origin = Annotated[ColumnSource, BeforeValidator(_from_shorthand)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def origins(self) -> dict[str, ColumnSource]:
        """Return contract column -> source, in declaration order, only what the mapping names."""
        found: dict[str, ColumnSource] = {}
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            if isinstance(value, ColumnSource):
                found[name] = value
        return found

    @model_validator(mode="after")
    def _columns_obey_their_keys(self) -> Self:
        for name, source in self.origins().items():
            called = type(self).model_fields[name].alias or name
            obeyed = _OBEYED.get(name, frozenset())
            for key in sorted(source.model_fields_set - obeyed - {"column", "constant"}):
                others = ", ".join(f"`{other}`" for other in ("column", "constant", *sorted(obeyed)))
                raise ValueError(f"`{called}` does not obey `{key}`, only {others}; leave it out")
            meanings = _MEANINGS.get(name)
            for value in (source.values or {}).values() if meanings else ():
                if meanings and value not in meanings:
                    known = ", ".join(f"`{meaning}`" for meaning in meanings)
                    raise ValueError(f"`{called}` has no value `{value}`; it has {known}")
        return self


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
    ignore: Texts = Field((), description="source columns that are not imported")

    @model_validator(mode="after")
    def _people_differ(self) -> Self:
        if self.user_id is not None and self.user_id.column is None:
            raise ValueError("the mapping gives every person the same `user_id`; name the column that holds it")
        return self


class InteractionsMapping(_Table):
    """Source of each column of `duet.interactions`; other source columns are not imported."""

    event_id: Origin | None = None
    actor_id: Origin | None = Field(None, alias="actor")
    target_id: Origin | None = Field(None, alias="target")
    kind: Origin | None = None
    occurred_at: Origin | None = Field(None, alias="time")
    rating: Rating | None = None

    @model_validator(mode="after")
    def _two_people_and_one_decision(self) -> Self:
        if self.kind is not None and self.rating is not None:
            raise ValueError("give either `kind` or `rating`")
        actor = None if self.actor_id is None else self.actor_id.column
        if actor is not None and self.target_id is not None and self.target_id.column == actor:
            raise ValueError(f"`actor` and `target` both read the column `{actor}`; name the other one")
        one = None if self.actor_id is None else self.actor_id.constant
        if one is not None and self.target_id is not None and self.target_id.constant == one:
            raise ValueError(f"`actor` and `target` are both `{one}` in every row; name the columns that hold them")
        if self.event_id is not None and self.event_id.column is None:
            raise ValueError(
                "the mapping gives every interaction the same `event_id`; name the column that holds it, or leave it "
                "out"
            )
        return self


class Mapping(BaseModel):
    """The whole of `mapping.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: PeopleMapping = PeopleMapping()
    interactions: InteractionsMapping = InteractionsMapping()
    null_values: Texts = Field((), description="text that means `no value`, e.g. `NA`")
    encoding: str | None = Field(None, description="of CSV files; found out when absent")
    delimiter: str | None = Field(None, description="of CSV files; found out when absent")
    quote: Literal["double", "none"] | None = Field(
        None, description="`none`: these CSV files do not quote; `double`: they do, whatever the values look like"
    )

    @field_validator("people", "interactions", mode="before")
    @classmethod
    def _an_empty_section_says_nothing(cls, section: object) -> object:
        return {} if section is None else section

    @field_validator("null_values", mode="before")
    @classmethod
    def _nothing_is_no_list(cls, values: object) -> object:
        return () if values is None else values

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        if delimiter is None:
            return None
        delimiter = _DELIMITERS.get(delimiter, delimiter)
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\x00':
            raise ValueError(f"`{delimiter}` cannot be a delimiter; give one ASCII character such as `;`, or `tab`")
        return delimiter
