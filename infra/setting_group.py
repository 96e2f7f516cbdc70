"""What every group of settings is, and the kinds of value that several of them have."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Group(BaseModel):
    """A group of settings: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def over_http(url: SecretStr) -> SecretStr:
    """Return a URL that a client can be given; raises ValueError."""
    if not url.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("is not a URL of the form `https://host/path`")
    return url
