"""The GET routes beside the two calls: health, metrics, the OpenAPI document and its page, as a mounted app."""

from collections.abc import Callable
from datetime import UTC

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from infra.metrics import render
from serving.api import openapi, responses
from serving.api.health import (
    ExperimentHealth,
    HealthReport,
    KeysReport,
    LimiterReport,
    LiveReport,
    PopulationReport,
    ReadyReport,
    ReleaseReport,
    ReplicaReport,
    StreamsReport,
    WebhooksReport,
)
from serving.runtime import Runtime

# BentoML serves Swagger's files, but its own page around them loads a tracker from the internet.
_INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Duet</title>
<link rel="stylesheet" href="static_content/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "docs.json", dom_id: "#swagger-ui"})</script>
</body>
</html>
"""


def pages(runtime: Runtime, draining: Callable[[], bool] = lambda: False) -> Starlette:
    """Return the app; `runtime` must be started before it answers."""

    async def live(_: Request) -> Response:
        return responses.ok(LiveReport())

    async def ready(_: Request) -> Response:
        report = _verdict(runtime, draining())
        return responses.ok(report, 503 if report.status == "not_ready" else 200)

    async def health(_: Request) -> Response:
        return responses.ok(_health(runtime, draining()))

    async def metrics(_: Request) -> Response:
        body, media_type = render()
        return Response(body, media_type=media_type)

    async def index(_: Request) -> Response:
        return HTMLResponse(_INDEX)

    async def document(_: Request) -> Response:
        return JSONResponse(openapi.document())

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/docs.json", document),
            Route("/openapi.json", document),  # where other frameworks have it
            Route("/docs", index),
            Route("/", index),
        ]
    )


def _verdict(runtime: Runtime, draining: bool) -> ReadyReport:  # noqa: FBT001 as below
    if draining:
        return ReadyReport(status="not_ready", reasons=["The service is being stopped."])
    if not runtime.warm:
        return ReadyReport(status="not_ready", reasons=["The service is still loading."])
    outage = runtime.outage()
    if outage is not None:
        return ReadyReport(status="not_ready", reasons=[outage])
    problems = runtime.problems()
    return ReadyReport(status="degraded" if problems else "ready", reasons=problems)


def _health(runtime: Runtime, draining: bool) -> HealthReport:  # noqa: FBT001 said by its only caller
    verdict = _verdict(runtime, draining)
    releases, snapshot, table = runtime.releases, runtime.snapshot, runtime.authenticator.table
    experiments = runtime.experiments
    filled_at = snapshot.current.filled_at if snapshot.current else None
    return HealthReport(
        status=verdict.status,
        reasons=verdict.reasons,
        release=ReleaseReport(
            release=releases.current.release_id if releases.current else None,
            loaded_at=releases.loaded_at.astimezone(UTC).isoformat() if releases.loaded_at else None,
            refused=releases.refusal,
            pinned=releases.pin.versions.release_id if releases.pin else None,
            pin_problem=releases.pin_problem,
        ),
        experiment=ExperimentHealth(
            name=experiments.active.name if experiments.active else None,
            state=experiments.state.value,
            challenger=releases.challenger.release_id if releases.challenger else None,
            refused=releases.challenger_refusal,
            message=experiments.problem,
        ),
        population=PopulationReport(
            people=len(snapshot.current.population) if snapshot.current else 0,
            age_s=snapshot.age_s(),
            features_age_s=None if filled_at is None else round((runtime.clock.now() - filled_at).total_seconds(), 3),
            message=snapshot.problem,
        ),
        newcomers=runtime.newcomers.report(),
        postgres=runtime.health_checker.report("postgres"),
        replica=runtime.replica.report() if runtime.replica else ReplicaReport(status="not_configured"),
        redis=runtime.health_checker.report("redis"),
        mlflow=runtime.health_checker.report("mlflow"),
        breakers={breaker.name: breaker.state.value for breaker in runtime.breakers.values()}
        | {name: state.value for name, state in runtime.models.report(runtime.serving_releases()).items()},
        pools=runtime.pools.report(),
        limiter=LimiterReport(
            in_flight=runtime.limiter.in_flight,
            queued=runtime.limiter.queued,
            most=runtime.settings.serving.max_concurrency,
        ),
        tasks=runtime.tasks.report(),
        keys=KeysReport(
            needed=runtime.authenticator.closed,
            known=table is not None and table.known,
            message=None if table is None else table.problem,
        ),
        webhooks=WebhooksReport(status="off") if runtime.webhooks is None else runtime.webhooks.report(),
        streams=StreamsReport(status="off") if runtime.streams is None else runtime.streams.report(),
    )
