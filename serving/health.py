"""What /health says: live (the process), ready (should traffic come), and every component in detail.

Degraded still counts as ready, and says so: a service without a model answers, only worse. Without eligibility it is
not ready, because it could only answer with empty lists.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.clock import Clock

CHECK_TIMEOUT_S = 0.5


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


class ReleaseReport(_Report):
    """The release being served."""

    release: str | None
    loaded_at: str | None = Field(description="UTC, ISO 8601.")
    refused: str | None = Field(description="Why the release that should serve does not.")


class PopulationReport(_Report):
    """The snapshot of people that candidates come from."""

    people: int
    age_s: float | None
    message: str | None = Field(description="Why the last refresh failed.")


class HealthReport(_Report):
    """Every component."""

    status: Literal["ready", "degraded", "not_ready"]
    reasons: list[str]
    release: ReleaseReport
    population: PopulationReport
    postgres: ComponentReport
    redis: ComponentReport
    mlflow: ComponentReport


async def probe(check: Callable[[], Awaitable[object]] | None, clock: Clock) -> ComponentReport:
    """Time one check, at most CHECK_TIMEOUT_S; None means the component is not configured."""
    if check is None:
        return ComponentReport(status="not_configured")
    began = clock.monotonic()
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        return ComponentReport(status="down", message=f"No answer within {CHECK_TIMEOUT_S} s.")
    except Exception as error:  # noqa: BLE001 whatever a client library raises, the component is down
        return ComponentReport(status="down", message=type(error).__name__)
    return ComponentReport(status="up", latency_ms=round((clock.monotonic() - began) * 1000, 3))
