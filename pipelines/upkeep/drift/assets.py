"""Drift as an asset: measured every night, drawn, and read by the sensor that asks for a retraining."""

from typing import Any

import dagster as dg

from pipelines.io_manager import MAY_BE_MISSING
from pipelines.presentation import plots, table
from pipelines.resources import Platform
from pipelines.results.store import StepResult, combined_digest
from pipelines.upkeep.drift.config import DriftConfig

SHOWN = 40


class DriftStep(DriftConfig, dg.Config):
    """Say which decisions stand for the present."""


@dg.asset(
    deps=["features", "promoted_release"],
    # Without a release in Production there is nothing to measure, whatever else is missing.
    ins={name: dg.AssetIn(metadata=MAY_BE_MISSING) for name in ("interactions", "embeddings", "candidate_index")},
    group_name="release",
    kinds={"numpy", "feast"},
    pool="training",
    description="Population stability index of the latest decisions against the training rows of the ranker in "
    "Production, feature by feature, and of the like rate.",
)
def drift(  # noqa: PLR0917 - an argument for each input
    context: dg.AssetExecutionContext,
    config: DriftStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult | None,
    embeddings: StepResult | None,
    candidate_index: StepResult | None,
) -> dg.MaterializeResult[Any]:
    """Measure, or say why nothing could be measured."""
    from pipelines.upkeep.drift.measure import measure_drift
    from pipelines.upkeep.drift.plots import drift_plot
    from registry.measurements import Measure, StoredMeasurement, keep_measurement

    threshold = platform.settings.automation.drift_psi
    found = measure_drift(
        platform, config, interactions=interactions, embeddings=embeddings, candidate_index=candidate_index
    )
    if isinstance(found, str):
        context.log.info("not measured: %s", found)
        return dg.MaterializeResult(metadata={"measured": False, "why": found, "beyond": False})
    name, worst = found.worst
    measured_at = platform.clock.now()
    with platform.connection() as connection:
        keep_measurement(connection, StoredMeasurement(Measure.DRIFT_PSI, worst, found.release, measured_at))
    # Naming the training rows that were compared with keeps them.
    made = StepResult(
        asset="drift", digest=combined_digest({"dataset": found.dataset}), run_id=context.run.run_id,
        as_of=measured_at, inputs={"ranking_dataset": found.dataset}, facts={"release": found.release},
        has_files=False,
    )  # fmt: skip
    context.log.info("`%s` moved furthest: %.3f, the limit is %.3f", name, worst, threshold)
    return dg.MaterializeResult(
        value=made,
        metadata={
            "measured": True,
            "release": found.release,
            "beyond": worst > threshold,
            "worst": name,
            "worst_psi": worst,
            "threshold": threshold,
            "like_rate_then": found.like_rates[0],
            "like_rate_now": found.like_rates[1],
            "rows_then": found.rows[0],
            "rows_now": found.rows[1],
            "psi": table([{"of": key, "psi": value} for key, value in list(found.psi.items())[:SHOWN]]),
            **plots({"drift": drift_plot(found.psi, threshold)}),
        },
    )
