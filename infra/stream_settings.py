"""The settings of the consumer of Redis Streams."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from infra.setting_group import Group, Seconds

_NAME: Final = r"^[A-Za-z0-9{}:_.-]+$"
Key = Annotated[str, Field(pattern=_NAME, max_length=200)]
"""A key of Redis, or the name of a consumer group."""


def _of_redis(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://")):
        raise ValueError("is not a URL of the form `redis://host:6379/0`")
    return url


class StreamSettings(Group):
    """The consumer of Redis Streams, `duet stream`."""

    enabled: bool = Field(
        False, description="Whether `duet up` runs the consumer, and serving measures how much waits for it."
    )
    url: Annotated[SecretStr, AfterValidator(_of_redis)] | None = Field(
        None, description="URL of the Redis with the streams; unset is DUET_REDIS_URL."
    )
    interactions: Key = Field("duet:interactions", description="Stream of interactions.")
    people: Key = Field("duet:people", description="Stream of people.")
    group: Key = Field("duet", description="Consumer group, on both streams.")
    batch: int = Field(200, ge=1, le=200, description="Most entries read, and stored in one statement, at once.")
    claim_after_s: Seconds = Field(
        30.0, le=86400, description="Silence of a consumer from which on another one takes over its entries, s."
    )
    unknown_wait_s: float = Field(
        60.0,
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="Age up to which an interaction waits for people who are not stored yet, s.",
    )
    keep_s: Seconds | None = Field(
        None,
        le=31536000,
        description="Age from which on stored entries are removed from the streams, s; unset leaves that to producers.",
    )
    dead_letters_kept_s: Seconds = Field(
        604800.0, le=31536000, description="Age from which on refused entries are forgotten, s."
    )
    dead_letters_max: int = Field(
        100000, ge=1, le=10000000, description="Most refused entries that are kept, of each stream; the oldest go."
    )

    @field_validator("people")
    @classmethod
    def _is_another(cls, people: str, told: ValidationInfo) -> str:
        if people == told.data.get("interactions"):
            raise ValueError("is the stream of interactions, too: name two streams")
        return people
