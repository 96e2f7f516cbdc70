"""The one frozen tree of settings, read once in an entry point by `load_settings` and passed down.

A value comes from (first wins) an override, the environment (`DUET_…`, groups joined by `__`), `.env` (development
only), a file of the same name in the secrets folder, the default. It refuses unknown `DUET_` variables, values out
of bounds and change after it is built. `Settings(...)` itself reads nothing.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from infra.observing_settings import AlertsSettings, LoggingSettings, TracingSettings, UpkeepSettings
from infra.setting_group import Group, Seconds
from infra.stream_settings import StreamSettings
from infra.variables import PREFIX, read_settings
from infra.webhook_settings import WebhooksSettings


def _expanded(path: Path) -> Path:
    return path.expanduser()


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 16:
        raise ValueError("has fewer than 16 characters")
    return secret


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("is not an address or a network of the form `10.0.0.0/8`") from None
    return text


Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 lets Duet choose a free one."""
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")]


class PostgresSettings(Group):
    """PostgreSQL: the embedded server, and every client's limits."""

    port: Port = Field(0, description="Port of the embedded server; 0 picks a free one once and remembers it.")
    shared_buffers_mb: int = Field(256, ge=16, le=65536, description="Page cache of the embedded server, MiB.")
    max_connections: int = Field(200, ge=20, le=5000, description="Connections the embedded server accepts.")
    start_timeout_s: Seconds = Field(60.0, le=3600, description="Longest start without progress, s.")
    pool_size: int = Field(10, ge=1, le=500, description="Connections a pool keeps open.")
    max_overflow: int = Field(20, ge=0, le=500, description="Connections a pool may open beyond `pool_size`.")
    max_waiting: int = Field(200, ge=1, le=10000, description="Requests that may wait for a connection of a pool.")
    checkout_timeout_s: Seconds = Field(0.2, le=60, description="Longest wait for a connection of a pool, s.")
    connect_timeout_s: Seconds = Field(3.0, le=120, description="Longest wait for a new connection, s.")
    statement_timeout_s: Seconds = Field(1.0, le=3600, description="Longest statement on the request path, s.")
    prepared_statements: bool = Field(
        True,
        description="Whether statements are prepared; behind PgBouncer in transaction mode that needs version 1.21 "
        "with max_prepared_statements > 0.",
    )
    read_replica_url: SecretStr | None = Field(
        None, description="URL of a read replica for profiles and decisions; unset reads from the primary."
    )
    replica_max_lag_s: Seconds = Field(1.0, le=3600, description="Lag from which on a replica is not read, s.")


class RedisSettings(Group):
    """Redis: the embedded server, and every client's limits."""

    port: Port = Field(0, description="Port of the embedded server; 0 picks a free one once and remembers it.")
    start_timeout_s: Seconds = Field(60.0, le=3600, description="Longest start without progress, s.")
    socket_timeout_s: Seconds = Field(0.05, le=60, description="Longest wait for an answer on the request path, s.")
    connect_timeout_s: Seconds = Field(0.05, le=60, description="Longest wait for a new connection, s.")
    max_connections: int = Field(64, ge=1, le=10000, description="Connections one client may open.")


class MlflowSettings(Group):
    """MLflow: tracking server and model registry."""

    url: str | None = Field(
        None, pattern=r"^https?://", max_length=2000, description="URL of an MLflow server; unset starts one."
    )
    token: SecretStr | None = Field(
        None, description="Token that the server at `url` asks for; a started server has one of its own."
    )
    host: Host = Field("127.0.0.1", description="Address the started server listens on.")
    port: Port = Field(5000, description="Port of the started server; 0 picks a free one once and remembers it.")
    promoted_by: Literal["stages", "aliases"] = Field(
        "stages",
        description="What says which versions serve: the stages Production and Staging, or, for an MLflow that has no "
        "stages any more, the aliases champion and challenger alone. The same for every process.",
    )
    experiment: str = Field("duet", min_length=1, max_length=200, description="Experiment that runs are logged to.")
    start_timeout_s: Seconds = Field(120.0, le=3600, description="Longest start without progress, s.")
    request_timeout_s: Seconds = Field(10.0, le=600, description="Longest wait for one answer of the server, s.")


class DagsterSettings(Group):
    """Dagster: web server and daemon."""

    host: Host = Field("127.0.0.1", description="Address the web server listens on.")
    port: Port = Field(3000, description="Port of the web server; 0 picks a free one.")
    start_timeout_s: Seconds = Field(120.0, le=3600, description="Longest start without progress, s.")


class WebSettings(Group):
    """Who may open the pages of MLflow and Dagster."""

    auth: Literal["auto", "required", "off"] = Field(
        "auto",
        description="Whether both ask for a token; `auto`: in production, and where other people have accounts "
        "on this machine.",
    )
    token: Annotated[SecretStr, AfterValidator(_long_enough)] | None = Field(
        None,
        description="The token that both ask for, 16 characters or more; unset makes one in the data folder. Servers "
        "with data folders of their own need the same.",
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]+$", max_length=253)], ...] = Field(
        (),
        max_length=100,
        description="Other names under which people reach both, with commas between them: `mlflow.example.com`.",
    )


class CacheSettings(Group):
    """Answers kept for a while; every one is checked for safety again when it is read."""

    enabled: bool = Field(True, description="Whether answers are kept at all.")
    ttl_s: Seconds = Field(600.0, le=86400, description="Longest life of a kept answer, s.")
    jitter: float = Field(
        0.1,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of the life by which it varies, so that kept answers do not all end together.",
    )
    max_entries: int = Field(20000, ge=1, le=10000000, description="Answers kept in the memory of one worker.")
    redis: bool = Field(False, description="Whether Redis is a second tier: for more than one worker or machine.")


class BreakerSettings(Group):
    """Circuit breakers around Redis, Postgres and MLflow."""

    window_s: Seconds = Field(10.0, le=600, description="Time that failure and slow-call rates look back, s.")
    min_calls: int = Field(10, ge=1, le=10000, description="Calls in the window before it can open.")
    failure_rate: float = Field(0.5, gt=0, le=1, allow_inf_nan=False, description="Share of failed calls that opens.")
    slow_rate: float = Field(0.9, gt=0, le=1, allow_inf_nan=False, description="Share of slow calls that opens.")
    slow_share: float = Field(
        0.8, gt=0, le=1, allow_inf_nan=False, description="Share of its time limit from which on a call is slow."
    )
    fair_timeout_ms: float = Field(
        10.0,
        ge=0,
        le=10000,
        allow_inf_nan=False,
        description="Timeouts shorter than this do not count against a dependency, ms.",
    )
    open_s: Seconds = Field(1.0, le=600, description="Time until one call may try again, s.")


class AuthSettings(Group):
    """Who may call the service."""

    mode: Literal["auto", "required", "off"] = Field(
        "auto", description="Whether calls need an API key; `auto` asks for one in production only."
    )
    refresh_s: Seconds = Field(5.0, le=3600, description="Time between looks at the table of keys, s.")
    requests_per_minute: int = Field(
        60000, ge=1, le=100000000, description="Most requests a minute of a key that has no limit of its own."
    )
    shared_limits: bool = Field(
        False, description="Whether limits are counted in Redis for all workers together, not in each."
    )


class ServingSettings(Group):
    """The HTTP service that answers recommendations."""

    host: Host = Field("127.0.0.1", description="Address the service listens on.")
    port: Port = Field(8000, description="Port of the service; 0 picks a free one.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    replicas: int = Field(
        1, ge=1, le=1000, description="Machines that run this service on one database; `duet doctor` counts with it."
    )
    timeout_s: Seconds = Field(1.0, le=60, description="Longest time one HTTP request may take, s.")
    deadline_ms: int = Field(250, ge=10, le=10000, description="Budget of one recommendation before it degrades, ms.")
    n_candidates: int = Field(300, ge=1, le=5000, description="Candidates that stage 1 hands to stage 2.")
    ranker_url: str | None = Field(
        None,
        pattern=r"^https?://",
        max_length=2000,
        description="URL of the ranker's own service, `serving.ranker_service:RankerService`; unset ranks in process.",
    )
    ranker_timeout_ms: int = Field(
        50, ge=10, le=10000, description="Longest wait for the ranker's service, ms; then this process ranks itself."
    )
    requester_weight: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Weight of the requester's taste in retrieval, share; empty takes what won on held-out lists.",
    )
    release_poll_s: Seconds = Field(5.0, le=3600, description="Time between looks at the model registry, s.")
    snapshot_refresh_s: Seconds = Field(5.0, le=86400, description="Time between refreshes of the population, s.")
    snapshot_rebuild_s: Seconds = Field(
        600.0, le=86400, description="Longest time until the population is written anew, without those deleted, s."
    )
    snapshot_stale_s: Seconds = Field(
        60.0, le=86400, description="Age from which on the population in memory is reported as stale, s."
    )
    newcomers: int = Field(
        50000, ge=0, le=1000000, description="Most people searched beside the index: those it does not know yet."
    )
    max_body_bytes: int = Field(65536, ge=1024, le=10485760, description="Largest accepted request body, bytes.")
    exploration_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        allow_inf_nan=False,
        description="Share of an answer given to random exploration, in its lower half.",
    )
    exposure_strength: float = Field(
        0.0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="How much of the price of people in great demand is taken off scores: 0 nothing, 1 all of it.",
    )
    aggregator: Literal["auto", "requester", "product", "harmonic", "min", "geometric"] = Field(
        "auto",
        description="How two directed scores become one; auto: what won on held-out lists, requester: one side.",
    )
    start_timeout_s: Seconds = Field(120.0, le=3600, description="Longest start without progress, s.")
    max_concurrency: int = Field(16, ge=1, le=1000, description="Calls that one worker works on at once.")
    max_queued: int = Field(32, ge=0, le=10000, description="Calls that may wait for a place in one worker.")
    queue_timeout_ms: int = Field(75, ge=0, le=10000, description="Longest wait for a place, ms; then 503.")
    experiment_poll_s: Seconds = Field(1.0, le=3600, description="Time between looks at the experiments, s.")
    cors_origins: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="Origins whose pages may call, with commas between them or as JSON: `https://app.example.com`.",
    )
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (),
        max_length=100,
        description="Addresses or networks of the proxies before the service, with commas between them: their "
        "X-Forwarded-For is believed.",
    )
    max_connections: int = Field(500, ge=10, le=100000, description="Connections that one worker keeps open.")
    max_header_bytes: int = Field(32768, ge=1024, le=1048576, description="Largest accepted head of a request, bytes.")
    header_timeout_s: Seconds = Field(10.0, le=600, description="Longest time for the head of a request to arrive, s.")
    cors_credentials: bool = Field(False, description="Whether browsers may send credentials along.")
    drain_s: float = Field(
        0.0, ge=0, le=600, allow_inf_nan=False, description="Time between saying `not ready` and stopping, s."
    )
    cache: CacheSettings = Field(default_factory=CacheSettings)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)


class FeaturesSettings(Group):
    """The Feast feature store."""

    project: str = Field(
        "duet", pattern=r"^[a-z][a-z0-9_]*$", max_length=60, description="Feast project: prefix of every stored key."
    )
    offline_store: Literal["fast", "postgres"] = Field(
        "fast", description="Point-in-time join: ours on Postgres (`fast`) or the stock one (`postgres`)."
    )
    online_store: Literal["fail_fast", "redis", "sqlite"] = Field(
        "fail_fast",
        description="Online reads: Redis without hidden retries (`fail_fast`), the stock one (`redis`), or a file of "
        "one machine (`sqlite`).",
    )
    registry: Literal["sql", "file"] = Field(
        "sql", description="The catalogue: in Postgres (`sql`) or a file of one machine (`file`)."
    )
    registry_cache_ttl_s: int = Field(60, ge=1, le=86400, description="Age at which the catalogue is re-read, s.")


class RankingSettings(Group):
    """What the ranking stage may use."""

    pending_likes: bool = Field(
        False, description="Whether `this person already liked you` may be a candidate source and a feature."
    )


class AutomationSettings(Group):
    """What Dagster does by itself."""

    impressions_kept_days: int = Field(
        90, ge=1, le=3650, description="Days that shown people are kept one by one; older ones become daily totals."
    )
    drift_psi: float = Field(
        0.25,
        gt=0,
        le=100,
        allow_inf_nan=False,
        description="Population stability index that asks for a retraining; the alert DuetDrift stays at 0.25.",
    )
    drift_cooldown_days: float = Field(
        7.0, ge=0, le=365, allow_inf_nan=False, description="Shortest time between two retrainings for drift, days."
    )


class GatesSettings(Group):
    """What a release must pass before it can be promoted."""

    file: Annotated[Path, AfterValidator(_expanded)] | None = Field(
        None, description="YAML file of the gates; unset takes those that come with Duet."
    )


class ExperimentSettings(Group):
    """How experiments are judged, and what the guard watches by."""

    attribution_s: Seconds = Field(
        3600.0, le=2592000, description="Time after a showing in which a like counts as its outcome, s."
    )
    decide_by: Literal["match_rate", "like_rate"] = Field(
        "match_rate", description="The rate that decides an experiment."
    )
    alpha: float = Field(
        0.05, gt=0, le=0.5, allow_inf_nan=False, description="Chance of ever deciding for a difference that is none."
    )
    expected_effect: float = Field(
        0.1, gt=0, le=10, allow_inf_nan=False, description="Change that is expected, as a share of the champion's rate."
    )
    guardrails: Annotated[Path, AfterValidator(_expanded)] | None = Field(
        None, description="File of guardrails for the guard; unset takes the one beside its code."
    )


class Settings(BaseSettings):
    """Everything that can be set, frozen; build it with `load_settings`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True, env_prefix=PREFIX)

    environment: Literal["development", "test", "production"] = Field(
        "development", description="Where this runs; `.env` is read in `development` only."
    )
    data_dir: Annotated[Path, AfterValidator(_expanded)] = Field(
        Path(".duet"), description="Folder of the embedded servers' data, secrets, logs and cached releases."
    )
    database_url: SecretStr | None = Field(
        None, description="URL of a PostgreSQL database (`postgresql://…`); unset starts the embedded server."
    )
    redis_url: SecretStr | None = Field(
        None, description="URL of a Redis database (`redis://…`); unset starts the embedded server."
    )
    results_uri: str | None = Field(
        None,
        description="Folder or bucket in which all machines share the results of training steps (`file:///…`, "
        "`s3://…`); unset keeps them in the data folder.",
    )
    postgres: PostgresSettings = Field(default_factory=PostgresSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    mlflow: MlflowSettings = Field(default_factory=MlflowSettings)
    dagster: DagsterSettings = Field(default_factory=DagsterSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    features: FeaturesSettings = Field(default_factory=FeaturesSettings)
    ranking: RankingSettings = Field(default_factory=RankingSettings)
    automation: AutomationSettings = Field(default_factory=AutomationSettings)
    gates: GatesSettings = Field(default_factory=GatesSettings)
    alerts: AlertsSettings = Field(default_factory=AlertsSettings)
    experiments: ExperimentSettings = Field(default_factory=ExperimentSettings)
    logging: LoggingSettings = Field(default_factory=LoggingSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    upkeep: UpkeepSettings = Field(default_factory=UpkeepSettings)
    webhooks: WebhooksSettings = Field(default_factory=WebhooksSettings)
    stream: StreamSettings = Field(default_factory=StreamSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only: the environment is read by `load_settings`, where a misspelling is noticed."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def load_settings(**overrides: Any) -> Settings:
    """Build the settings from overrides, environment, `.env` and secret files.

    An override of a group is a mapping: `load_settings(postgres={"port": 5433})`. Raises ConfigurationError.
    """
    return read_settings(Settings, os.environ, overrides)
