"""The read-out of the active experiment, or of the one named: table, plots, decision; kept in MLflow too."""

from typing import Any

import dagster as dg
from pydantic import Field

from pipelines.presentation import link, plots, table
from pipelines.resources import Platform


class ReportConfig(dg.Config):
    """What is read out."""

    experiment: str = Field(
        "",
        max_length=100,
        description="Name of the experiment; empty: the active one, else the one that changed last.",
    )


@dg.asset(
    group_name="experiments",
    kinds={"postgres", "mlflow"},
    description="Champion against challenger: rates with intervals, sample ratio, always-valid decision.",
)
def experiment_report(
    context: dg.AssetExecutionContext, config: ReportConfig, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Read an experiment out, log it, and say what may be decided."""
    import pandas as pd

    from pipelines.experiments.plots import figures_of
    from pipelines.experiments.readout import read_out
    from pipelines.experiments.tables import metrics_of, rows_of, shadow_rows

    with platform.connection() as connection:
        report = read_out(connection, platform.settings.experiments, platform.clock.now(), config.experiment)
    rows, figures, stretch = rows_of(report), figures_of(report), report.stretch
    run = platform.models.log_evaluation(
        name=f"experiment-{stretch.name}",
        metrics=metrics_of(report),
        params={
            "experiment": stretch.name,
            "share": stretch.share,
            "since": stretch.since.isoformat(),
            "until": stretch.until.isoformat(),
            "attribution_s": report.choices.window.total_seconds(),
            "decide_by": report.choices.decide_by,
            "alpha": report.choices.alpha,
        },
        figures=figures,
        tables={"experiment.csv": pd.DataFrame(rows).to_csv(index=False)},
        tags={"experiment": stretch.name, "decision": report.decision.value},
        dagster_run_id=context.run.run_id,
        dagster_url=platform.run_url(context.run.run_id),
    )
    return dg.MaterializeResult(
        metadata={
            "experiment": stretch.name,
            "decision": dg.MetadataValue.md(f"**{stretch.name}**: {report.sentence}"),
            "table": table(rows),
            "since": stretch.since.isoformat(),
            "share": stretch.share,
            "mlflow": link(platform.models.run_url(run)),
            **(
                {}
                if report.counterfactual is None
                else {"what the shadow would have reached": table(shadow_rows(report.counterfactual))}
            ),
            **({} if report.sample_ratio_p is None else {"sample ratio p": report.sample_ratio_p}),
            **plots(figures),
        }
    )
