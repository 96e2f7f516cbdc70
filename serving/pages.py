"""The GET routes beside the two calls: health, metrics, the OpenAPI document and its page, as a mounted app."""

import asyncio
from collections.abc import Callable
from datetime import UTC

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from infra.metrics import render
from serving import openapi, responses
from serving.health import (
    ComponentReport,
    HealthReport,
    LiveReport,
    PopulationReport,
    ReadyReport,
    ReleaseReport,
    probe,
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
        if draining():
            return responses.ok(ReadyReport(status="not_ready", reasons=["The service is being stopped."]), 503)
        report = _verdict(runtime, await _postgres(runtime))
        return responses.ok(report, 503 if report.status == "not_ready" else 200)

    async def health(_: Request) -> Response:
        return responses.ok(await _health(runtime))

    async def metrics(_: Request) -> Response:
        runtime.metrics.pool_waiting.set(runtime.pool.get_stats().get("requests_waiting", 0))
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
            Route("/", index),
        ]
    )


async def _postgres(runtime: Runtime) -> ComponentReport:
    async def select() -> None:
        async with runtime.pool.connection() as connection:
            await connection.execute(b"SELECT 1")

    return await probe(select, runtime.clock)


def _verdict(runtime: Runtime, postgres: ComponentReport) -> ReadyReport:
    if not runtime.warm:
        return ReadyReport(status="not_ready", reasons=["The service is still loading."])
    if postgres.status == "down":
        return ReadyReport(status="not_ready", reasons=["Postgres does not answer, so nobody can be shown safely."])
    problems = runtime.problems()
    return ReadyReport(status="degraded" if problems else "ready", reasons=problems)


async def _health(runtime: Runtime) -> HealthReport:
    async def ping_redis() -> None:
        await runtime.redis.execute_command("PING")  # type: ignore[no-untyped-call]

    async def ask_mlflow() -> None:
        if runtime.registry is not None:
            await asyncio.to_thread(runtime.registry.check)

    postgres = await _postgres(runtime)
    verdict = _verdict(runtime, postgres)
    releases, snapshot = runtime.releases, runtime.snapshot
    return HealthReport(
        status=verdict.status,
        reasons=verdict.reasons,
        release=ReleaseReport(
            release=releases.current.release_id if releases.current else None,
            loaded_at=releases.loaded_at.astimezone(UTC).isoformat() if releases.loaded_at else None,
            refused=releases.refusal,
        ),
        population=PopulationReport(
            people=len(snapshot.current.population) if snapshot.current else 0,
            age_s=snapshot.age_s(),
            message=snapshot.problem,
        ),
        postgres=postgres,
        redis=await probe(ping_redis, runtime.clock),
        mlflow=await probe(None if runtime.registry is None else ask_mlflow, runtime.clock),
    )
