"""Drift as an asset: measured every night, drawn, and read by the sensor that asks for a retraining."""

from typing import Any

import dagster as dg

from pipelines.drift.config import DriftConfig
from pipelines.launchpad import launch_checked, read_config
from pipelines.presentation import plots, table
from pipelines.resources import Platform
from pipelines.state import Current, combined_digest

SHOWN = 40


@dg.asset(
    deps=["features", "promoted_release"],
    group_name="release",
    kinds={"numpy", "feast"},
    pool="training",
    config_schema=launch_checked(DriftConfig),
    description="Population stability index of the latest decisions against the training rows of the ranker in "
    "Production, feature by feature, and of the like rate.",
)
def drift(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
    """Measure, or say why nothing could be measured."""
    from pipelines.drift.measure import measure_drift
    from pipelines.drift.plots import drift_plot
    from registry.measurements import Measure, Measurement, keep_measurement

    threshold = platform.settings.automation.drift_psi
    found = measure_drift(platform, read_config(context, DriftConfig))
    if isinstance(found, str):
        context.log.info("not measured: %s", found)
        return dg.MaterializeResult(metadata={"measured": False, "why": found, "beyond": False})
    name, worst = found.worst
    publish(platform, context.run.run_id, found.dataset, found.release)
    with platform.connection() as connection:
        measured_at = platform.clock.now()
        keep_measurement(connection, Measurement(Measure.DRIFT_PSI, worst, found.release, measured_at))
    context.log.info("`%s` moved furthest: %.3f, the limit is %.3f", name, worst, threshold)
    return dg.MaterializeResult(
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
        }
    )


def publish(platform: Platform, run_id: str, dataset: str, release: str) -> None:
    """Point at the training rows that were compared with, which keeps them on this disk."""
    directory = platform.state.directory("drift", "last")
    directory.mkdir(parents=True, exist_ok=True)
    platform.state.publish(
        Current(
            asset="drift", path=directory, digest=combined_digest({"dataset": dataset}), run_id=run_id,
            as_of=platform.clock.now(), inputs={"ranking_dataset": dataset}, facts={"release": release},
        )
    )  # fmt: skip
