"""Erasures as an asset: a run looks at every place of each open erasure and says what is still waited for."""

from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from pipelines.presentation import table
from pipelines.resources import Platform


class ErasureConfig(dg.Config):
    """Say how often an erasure that waits for something is looked at."""

    again_s: int = Field(default=120, ge=10, le=86_400, description="seconds until a place is looked at again")


@dg.asset(
    group_name="history",
    kinds={"postgres", "redis"},
    pool="history",
    description="People who asked to be forgotten, erased from every place that held them; their reports hold no ids.",
)
def erasures(
    context: dg.AssetExecutionContext, config: ErasureConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Carry on what is open, and finish what waits for nothing any more."""
    from pipelines.upkeep.erasure.passes import pass_over

    waiting = pass_over(platform, again=timedelta(seconds=config.again_s))
    rows = [{"erasure": number, "waits for": "; ".join(reasons) or "nothing"} for number, reasons in waiting.items()]
    for row in rows:
        context.log.info("erasure %s waits for %s", row["erasure"], row["waits for"])
    finished = sum(not reasons for reasons in waiting.values())
    return dg.MaterializeResult(metadata={"dagster/row_count": finished, "erasures": table(rows)})
