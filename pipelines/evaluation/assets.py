"""The comparison on the held-out window: every method, with intervals, plots and, in a generated world, the oracle."""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.errors import MissingUpstream
from pipelines.evaluation.config import EvaluationConfig
from pipelines.io_manager import MAY_BE_MISSING
from pipelines.presentation import frame, link, markdown, path, plots
from pipelines.ranking.assets import snapshot_of
from pipelines.resources import Platform
from pipelines.results.store import StepResult, combined_digest
from registry.contracts import ArtifactKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.evaluation.compare import EvaluationReport
    from pipelines.results.inputs import DataSnapshot

TABLE_FILE = "table.csv"
SLICES_FILE = "slices.csv"
COLD_START_FILE = "cold_start.csv"
MATCHES_FILE = "matches.csv"
REPORT_FILE = "report.json"


class EvaluationStep(EvaluationConfig, dg.Config):
    """Say who is asked, with which candidates, and how the two stages are combined."""


@dg.asset(
    # These two only give the comparison its name.
    ins={name: dg.AssetIn(metadata=MAY_BE_MISSING) for name in ("embeddings", "candidate_index")},
    group_name="evaluation",
    kinds={"numpy", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    description="Every simpler order that has something to go by, beside the two stages, on decisions after T1.",
)
def evaluation(  # noqa: PLR0917 - an argument for each input
    context: dg.AssetExecutionContext,
    config: EvaluationStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
    ranker: StepResult,
    embeddings: StepResult | None,
    candidate_index: StepResult | None,
) -> dg.MaterializeResult[Any]:
    """Compare the methods, log the comparison and keep its table."""
    from pipelines.evaluation.truth import truth_of_last_import

    judged = ranker
    snapshot = platform.snapshot(snapshot_of(judged, interactions))
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
    release = _release_of({"e": embeddings, "i": candidate_index, "r": judged}, judged)
    run = platform.models.log_evaluation(
        name=f"{release} evaluation ({report.protocol})",
        metrics=report.metrics(),
        params=parameters,
        figures=report.figures,
        tables={
            "evaluation.csv": report.table.to_csv(index=False),
            "evaluation_wide.csv": wide.to_csv(index=False),
            "evaluation_slices.csv": report.slices.to_csv(index=False),
            "evaluation_cold_start.csv": report.cold_start.to_csv(index=False),
            "evaluation_matches.csv": report.matches.to_csv(index=False),
        },
        tags=tags,
        dagster_run_id=context.run.run_id,
        dagster_url=platform.run_url(context.run.run_id),
    )
    digest = combined_digest(
        {
            "table": report.table.to_csv(index=False),
            "slices": report.slices.to_csv(index=False),
            "cold_start": report.cold_start.to_csv(index=False),
            "matches": report.matches.to_csv(index=False),
            "config": parameters,
            **tags,
        }
    )
    with platform.results.staging("evaluation") as scratch:
        staged = scratch / "report"
        staged.mkdir()
        report.table.to_csv(staged / TABLE_FILE, index=False)
        report.slices.to_csv(staged / SLICES_FILE, index=False)
        report.cold_start.to_csv(staged / COLD_START_FILE, index=False)
        report.matches.to_csv(staged / MATCHES_FILE, index=False)
        written = {"protocol": report.protocol, "numbers": report.numbers, "ranker_version": judged.version}
        (staged / REPORT_FILE).write_text(json.dumps(written, sort_keys=True, indent=2))
        directory = platform.results.adopt(staged, "evaluation", digest)
    made = StepResult(
        asset="evaluation", digest=digest, run_id=context.run.run_id, as_of=judged.as_of,
        t0=judged.t0, t1=judged.t1, inputs={**judged.inputs, "ranker": judged.digest},
        facts={"protocol": report.protocol, "mlflow_run": run},
    )  # fmt: skip
    return dg.MaterializeResult(
        value=made,
        metadata={
            "comparison": markdown(wide),
            **plots(report.figures),
            "protocol": report.protocol,
            "table": frame(report.table),
            "slices": frame(report.slices),
            "cold_start": frame(report.cold_start),
            "matches": frame(report.matches),
            "numbers": frame_of_numbers(report),
            "oracle": truth is not None,
            "mlflow": link(platform.models.run_url(run)),
            "digest": digest,
            "path": path(directory),
        },
    )


def compare(
    platform: Platform, judged: StepResult, snapshot: "DataSnapshot", config: EvaluationConfig, truth: Any
) -> "EvaluationReport":
    """Set the scene at T1 with the twins of the release, which know nothing later, and compare all methods on it."""
    from feature_repo.layout import RANKING_FEATURES
    from pipelines.evaluation.compare import evaluate
    from pipelines.evaluation.scene import Scene
    from pipelines.evaluation.windows import windows_between
    from pipelines.ranking.context import EverybodysFactors
    from pipelines.ranking.files import load_rows
    from pipelines.ranking.judging import JUDGED_RANKER
    from pipelines.ranking.rows import RowKind
    from pipelines.ranking.windows import TrainingGround
    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.twins import JUDGED
    from registry.contracts import ReleaseVersions
    from registry.models.artifacts import verify_artifact
    from registry.models.ranker import Ranker
    from registry.release import Release

    digest = judged.parts.get(JUDGED_RANKER)
    if digest is None:
        raise MissingUpstream("the newest ranker was registered without the one that was judged; run `train_ranker`")
    kept = platform.results.path(JUDGED_RANKER, digest)
    manifest = verify_artifact(kept, digest)
    last_likes = int(str(manifest.parameters.get("last_likes", 5)))
    ground = TrainingGround.of(platform, judged, snapshot.interactions_pointer, last_likes)
    stage = ground.stage(JUDGED, ground.t1_us)
    ranker = Ranker.load(kept, RANKING_FEATURES, threads=2, verified=manifest)
    release = Release(
        ReleaseVersions(0, 0, 0), stage.embedding, stage.index, ranker, {ArtifactKind.RANKER: manifest},
        stage.neighbours,
    )  # fmt: skip
    people = ground.ground.people_at(ground.t1_us + 1)
    rows = load_rows(platform.results.path("ranking_dataset", judged.inputs["ranking_dataset"]))
    scene = Scene(
        people=people,
        events=snapshot.events,
        windows=windows_between(snapshot.events, ground.t0_us, ground.t1_us),
        factors=EverybodysFactors.of(stage.embedding, people.user_ids, inputs_of(people, ground.t1_us / 1e6)),
        config=config,
        pending_likes=platform.settings.ranking.pending_likes,
        visible=snapshot.users["visible"].to_numpy().astype(bool),
        judged=release,
        population=ground.ground.population_at(ground.t1_us + 1),
    )
    decided = rows.kind == RowKind.LIKE
    return evaluate(scene, rows.take(rows.late & decided), truth, rows.take(~rows.late & decided))


def _release_of(parts: "Mapping[str, StepResult | None]", judged: StepResult) -> str:
    """Name the release that the judged ranker belongs to, as far as its parts are those made last."""
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
