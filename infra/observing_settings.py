"""The settings of what Duet tells of itself: logs, alerts and traces, and how long it is kept."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from infra.setting_group import Group, Seconds, over_http


class AlertsSettings(Group):
    """Whom alerts are sent to, beside the log."""

    webhook_url: Annotated[SecretStr, AfterValidator(over_http)] | None = Field(
        None, description="URL that alerts are posted to as JSON; unset writes them to the log only."
    )
    timeout_s: Seconds = Field(3.0, le=60, description="Longest wait for the webhook, s.")


class LoggingSettings(Group):
    """What is logged, and how it looks."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level written.")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json`, `console`, or `auto`: JSON in production, readable otherwise."
    )
    file_mb: int = Field(10, ge=1, le=10000, description="Size from which on a log file of `duet up` is cut, MiB.")
    files: int = Field(5, ge=0, le=100, description="Former log files that are kept of each process.")
    request_share: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of good answers that are logged, 1 for every request; errors always are.",
    )
    person_salt: SecretStr | None = Field(
        None,
        description="What turns a person's id into the name that logs have for them; unset makes one in the data "
        "folder. Replicas need the same.",
    )


class TracingSettings(Group):
    """OpenTelemetry traces of requests: their stages, and the stores that these ask."""

    endpoint: Annotated[SecretStr, AfterValidator(over_http)] | None = Field(
        None,
        description="URL that traces are sent to as OTLP over HTTP, as `http://host:4318/v1/traces`; unset is off.",
    )
    share: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the requests that are traced; of a caller who says it traces, all.",
    )


class UpkeepSettings(Group):
    """How long a running platform keeps what nobody needs for ever: Data Docs, and what runs left in folders."""

    days: int = Field(30, ge=1, le=3650, description="Age from which on they are removed, days.")
    mb: int = Field(2000, ge=1, le=10000000, description="Most space of each kind, MiB; the oldest go first.")
