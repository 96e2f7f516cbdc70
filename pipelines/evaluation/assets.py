"""The comparison on the held-out window: every method, with intervals, plots and, in a generated world, the oracle."""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.evaluation.config import EvaluationConfig
from pipelines.launchpad import launch_checked, read_config
from pipelines.presentation import frame, link, markdown, path, plots
from pipelines.ranking.assets import snapshot_of
from pipelines.resources import Platform
from pipelines.state import Current, combined_digest

if TYPE_CHECKING:
    from pipelines.evaluation.compare import EvaluationReport
    from pipelines.inputs import Snapshot

TABLE_FILE = "table.csv"
REPORT_FILE = "report.json"


@dg.asset(
    deps=["ranker", "candidate_index"],
    group_name="evaluation",
    kinds={"numpy", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    config_schema=launch_checked(EvaluationConfig),
    description="Random, popular, content, one-sided, reciprocal and two-stage orders on decisions after T1.",
)
def evaluation(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
    """Compare the methods, log the comparison and keep its table."""
    from pipelines.evaluation.truth import truth_of_last_import

    config = read_config(context, EvaluationConfig)
    judged = platform.state.require("ranker")
    snapshot = platform.snapshot(snapshot_of(platform, judged))
    with platform.connection() as connection:
        truth = truth_of_last_import(connection, snapshot.people.user_ids)
    report = compare(platform, judged, snapshot, config, truth)
    wide = report.wide().reset_index()
    tags = {
        "protocol": report.protocol,
        "embedding_digest": judged.inputs["embeddings"],
        "ranker_digest": judged.digest,
        "dataset_digest": combined_digest(snapshot.digests),
        "oracle": "yes" if truth is not None else "no",
    }
    parameters = config.model_dump(mode="json")
    run = platform.models.log_evaluation(
        name=f"{_release_of(platform, judged)} evaluation ({report.protocol})",
        metrics=report.metrics(),
        params=parameters,
        figures=report.figures,
        tables={"evaluation.csv": report.table.to_csv(index=False), "evaluation_wide.csv": wide.to_csv(index=False)},
        tags=tags,
        dagster_run_id=context.run.run_id,
        dagster_url=platform.run_url(context.run.run_id),
    )
    digest = combined_digest({"table": report.table.to_csv(index=False), "config": parameters, **tags})
    with platform.state.staging("evaluation") as scratch:
        staged = scratch / "report"
        staged.mkdir()
        report.table.to_csv(staged / TABLE_FILE, index=False)
        written = {"protocol": report.protocol, "numbers": report.numbers, "ranker_version": judged.version}
        (staged / REPORT_FILE).write_text(json.dumps(written, sort_keys=True, indent=2))
        directory = platform.state.adopt(staged, "evaluation", digest)
    platform.state.publish(
        Current(
            asset="evaluation", path=directory, digest=digest, run_id=context.run.run_id, as_of=judged.as_of,
            t0=judged.t0, t1=judged.t1, inputs={**judged.inputs, "ranker": judged.digest},
            facts={"protocol": report.protocol, "mlflow_run": run},
        )
    )  # fmt: skip
    return dg.MaterializeResult(
        metadata={
            "comparison": markdown(wide),
            **plots(report.figures),
            "protocol": report.protocol,
            "table": frame(report.table),
            "numbers": frame_of_numbers(report),
            "oracle": truth is not None,
            "mlflow": link(platform.models.run_url(run)),
            "digest": digest,
            "path": path(directory),
        }
    )


def compare(
    platform: Platform, judged: Current, snapshot: "Snapshot", config: EvaluationConfig, truth: Any
) -> "EvaluationReport":
    """Set the scene at T1 with the judged ranker and its embedding, and compare all methods on it."""
    from feature_repo.layout import RANKING_FEATURES
    from pipelines.evaluation.compare import evaluate, history_features
    from pipelines.evaluation.ground import Ground, windows_between
    from pipelines.evaluation.scene import Scene
    from pipelines.inputs import before_window, microseconds_of
    from registry.artifacts import read_manifest, verify_artifact
    from registry.embedding import Embedding
    from registry.ranker import Ranker

    digest = judged.inputs["embeddings"]
    manifest = verify_artifact(judged.path, judged.digest)
    fitted = platform.state.directory("embeddings", digest)
    embedding = Embedding.load(fitted, digest)
    t0_us, t1_us = microseconds_of(judged.t0 or judged.as_of), microseconds_of(judged.t1 or judged.as_of)
    ground = Ground.of(snapshot, windows_between(snapshot, t0_us, t1_us))
    scene = ground.scene(
        embedding,
        Ranker.load(judged.path, RANKING_FEATURES, threads=2, verified=manifest),
        config,
        learned_after_us=before_window(read_manifest(fitted).lineage),
        fitted_us=t0_us,
        last_likes=int(str(manifest.parameters.get("last_likes", Scene.last_likes))),
        pending_likes=platform.settings.ranking.pending_likes,
    )
    return evaluate(scene, history_features(ground.history), truth)


def _release_of(platform: Platform, judged: Current) -> str:
    """Name the release that the judged ranker belongs to, as far as its parts are those made last."""
    parts = {"e": platform.state.find("embeddings"), "i": platform.state.find("candidate_index"), "r": judged}
    fitting = {
        letter: part.version
        for letter, part in parts.items()
        if part is not None and judged.inputs["embeddings"] in {part.digest, part.inputs.get("embeddings")}
    }
    return "-".join(f"{letter}{version}" for letter, version in fitting.items())


def frame_of_numbers(report: "EvaluationReport") -> dg.MetadataValue:
    """Show the single figures of a report."""
    import pandas as pd

    return frame(pd.DataFrame(sorted(report.numbers.items()), columns=["figure", "value"]))
