"""The settings of the webhook that an app is told of matches and blocks by."""

import base64
import binascii
from contextlib import suppress
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from infra.setting_group import Group, Seconds, over_http

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 what such a secret begins with
_LEAST_BYTES: Final = 24


def secret_bytes(secret: SecretStr) -> bytes:
    """Return the key that a secret of the form `whsec_…` stands for; raises ValueError."""
    text, key = secret.get_secret_value(), b""
    if text.startswith(SECRET_PREFIX):
        with suppress(binascii.Error):
            key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    if len(key) < _LEAST_BYTES:
        raise ValueError(
            f"is not `{SECRET_PREFIX}` and {_LEAST_BYTES} bytes or more in base64: "
            f'make one with `echo "{SECRET_PREFIX}$(openssl rand -base64 32)"`'
        )
    return key


def _sound(secret: SecretStr) -> SecretStr:
    secret_bytes(secret)
    return secret


class WebhooksSettings(Group):
    """The webhook that an app is told of matches and blocks by."""

    url: Annotated[SecretStr, AfterValidator(over_http)] | None = Field(
        None, description="URL that matches and blocks are posted to, over https; unset is off."
    )
    secret: Annotated[SecretStr, AfterValidator(_sound)] | None = Field(
        None, description="What deliveries are signed with: `whsec_` and 24 bytes or more in base64."
    )
    timeout_s: Seconds = Field(5.0, le=60, description="Longest time for one delivery, s.")
    give_up_after_s: Seconds = Field(
        86400.0, le=2592000, description="Age from which on what cannot be delivered is given up and counted, s."
    )
    max_waiting: int = Field(
        100000, ge=1, le=10000000, description="Most events that wait for delivery; the oldest are given up."
    )
    allow_private: bool = Field(
        False,
        description="Whether the webhook may be at a loopback, private or link-local address, and at a URL of plain "
        "http.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.url is None:
            return self
        if self.secret is None:
            raise ValueError("`url` is set without `secret`: deliveries are signed, so set both")
        if urlsplit(self.url.get_secret_value()).scheme != "https" and not self.allow_private:
            raise ValueError(
                "`url` is plain http: use https, or set `allow_private` for a receiver of your own network"
            )
        return self
