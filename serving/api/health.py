"""What /health says: live (the process), ready (should traffic come), and every component in detail.

Degraded still counts as ready, and says so: a service without a model answers, only worse. Without eligibility it is
not ready, because it could only answer with empty lists.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LiveReport(_Report):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyReport(_Report):
    """Whether traffic should come, and how good the answers are."""

    status: Literal["ready", "degraded", "not_ready"]
    reasons: list[str] = Field(description="Why it is not simply `ready`.")


class ComponentReport(_Report):
    """One thing the service depends on."""

    status: Literal["up", "down", "not_configured"]
    latency_ms: float | None = None
    message: str | None = None


class ReplicaReport(ComponentReport):
    """The read replica."""

    lag_s: float | None = Field(None, description="How far it is behind; null while that is not known.")
    used: bool = Field(False, description="Whether it is read: near enough to now, and not cut off.")


class ReleaseReport(_Report):
    """The release being served."""

    release: str | None
    loaded_at: str | None = Field(description="UTC, ISO 8601.")
    refused: str | None = Field(description="Why the release that should serve does not.")
    pinned: str | None = Field(description="Release of a rollback that MLflow was not told of yet; it counts more.")
    pin_problem: str | None = Field(None, description="Why MLflow can never be told of it, and what to do.")


class PopulationReport(_Report):
    """The snapshot of people that candidates come from."""

    people: int
    age_s: float | None
    features_age_s: float | None = Field(description="Time since the online features were last written, s.")
    message: str | None = Field(description="Why the last refresh failed.")


class NewcomersReport(_Report):
    """The people who are searched beside the index of the release being served."""

    people: int = Field(description="How many they are: missing from the index, or changed since it was built.")
    missing: int = Field(description="People in the snapshot whom the index does not hold.")
    left_out: int = Field(description="People who found no place: a rebuild of the index is due.")
    age_s: float | None = Field(description="Time since they were last looked for, s; null before the first time.")
    message: str | None = Field(description="Why they could not be looked for the last time.")


class ExperimentHealth(_Report):
    """The experiment that has an effect, and its challenger."""

    name: str | None = Field(description="Null while no experiment is active.")
    state: Literal["off", "shadow", "running"]
    challenger: str | None = Field(description="The challenger's release.")
    refused: str | None = Field(description="Why the release in Staging does not serve.")
    message: str | None = Field(description="Why the experiments could not be read the last time.")


class PoolReport(_Report):
    """One pool of database connections."""

    size: int = Field(description="Connections that are open.")
    idle: int = Field(description="Connections that nobody uses.")
    waiting: int = Field(description="Calls that wait for a connection.")
    most: int = Field(description="Connections that may be open.")
    message: str | None = Field(None, description="Why the last attempt to connect failed.")


class LimiterReport(_Report):
    """How busy this worker is."""

    in_flight: int = Field(description="Calls being worked on.")
    queued: int = Field(description="Calls that wait for a place.")
    most: int = Field(description="Calls that are worked on at once.")


class KeysReport(_Report):
    """The API keys in memory."""

    needed: bool = Field(description="Whether calls need a key.")
    known: bool = Field(description="Whether the keys were read; until then nobody is let in.")
    message: str | None = Field(description="Why they could not be read the last time.")


class WebhooksReport(_Report):
    """The webhook that an app is told of matches and blocks by."""

    status: Literal["on", "off"]
    waiting: int | None = Field(None, description="Events that it was not told of yet; null while that is not known.")
    oldest_s: float | None = Field(None, description="Age of the oldest of them, s.")
    message: str | None = Field(None, description="Why the last delivery failed, until nothing waits.")


class StreamLag(_Report):
    """How far the consumer of one stream is behind."""

    waiting: int = Field(description="Entries that are not stored yet.")
    oldest_s: float = Field(description="Age of the oldest of them, s; 0 where none waits.")
    dead_letters: int = Field(description="Entries that could not be stored, since the stream is read.")


class StreamsReport(_Report):
    """The streams that interactions and people come by."""

    status: Literal["on", "off"]
    lags: dict[str, StreamLag] = Field(default_factory=dict, description="By stream; empty while that is not known.")
    message: str | None = Field(None, description="Why they could not be looked at the last time.")


class HealthReport(_Report):
    """Every component."""

    status: Literal["ready", "degraded", "not_ready"]
    reasons: list[str]
    release: ReleaseReport
    experiment: ExperimentHealth
    population: PopulationReport
    newcomers: NewcomersReport
    postgres: ComponentReport
    replica: ReplicaReport
    redis: ComponentReport
    mlflow: ComponentReport
    breakers: dict[str, Literal["closed", "half_open", "open"]] = Field(description="Open: its calls are cut off.")
    pools: dict[str, PoolReport]
    limiter: LimiterReport
    tasks: dict[str, Literal["running", "failing", "done"]] = Field(
        description="Background tasks; failing: it ended not long ago, and was begun again or will be."
    )
    keys: KeysReport
    webhooks: WebhooksReport
    streams: StreamsReport
