"""The guard on Dagster's clock: every half minute, on by default, its figures in the tick."""

from typing import Any, Final

import dagster as dg
import psycopg
import structlog

from infra.logging import configure_logging
from pipelines.resources import Platform

INTERVAL_S: Final = 30
LONGEST_STATEMENT: Final = "20s"
_log = structlog.get_logger(__name__)


@dg.sensor(
    name="guard",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends an experiment, or takes back a fresh release, that breaks a guardrail.",
)
def guard(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SkipReason:
    """Judge what is active and say what was found; what is done is in the audit, too."""
    configure_logging(platform.settings)  # each time: no code of Duet starts a code server, and Dagster's own undoes it
    verdicts = watch(platform)
    for verdict in verdicts:
        if verdict.outcome not in {"well", "waiting"}:
            context.log.warning("%s", verdict)
    said = " | ".join(str(verdict) for verdict in verdicts)
    return dg.SkipReason(said or "no experiment is running and no release is fresh")


def watch(platform: Platform) -> list[Any]:
    """Let the guard look once at this platform."""
    from feature_repo.schema import offered_schema
    from infra.alerts import send_alert
    from pipelines.experiments.guard import Guard
    from pipelines.experiments.guardrails import load_guardrails
    from pipelines.experiments.sample_ratio import measure_sample_ratio
    from registry.promotion.audit import PostgresPromotionLog
    from registry.promotion.release_cache import ReleaseCache

    settings = platform.settings
    rails = load_guardrails(settings.experiments.guardrails)
    with platform.connection(autocommit=True) as connection:
        connection.execute("select set_config('statement_timeout', %s, false)", (LONGEST_STATEMENT,))
        one = Guard(
            connection=connection,
            log=PostgresPromotionLog(connection),
            registry=lambda: platform.registry if platform.endpoints.mlflow_url else None,
            rails=rails,
            alert=lambda kind, summary, figures: send_alert(settings, kind, summary, figures),
            feature_schema=offered_schema(),
            cache=ReleaseCache(settings.data_dir / "releases"),
        )
        now = platform.clock.now()
        verdicts = one.watch(now)
        try:
            measure_sample_ratio(connection, now)
        except psycopg.errors.QueryCanceled:
            # A look over all answers of a long experiment may take longer: the guard must not fail for it.
            _log.warning("sample_ratio_not_measured", within=LONGEST_STATEMENT)
        return verdicts
