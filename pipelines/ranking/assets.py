"""The second stage: labelled pairs with what was known just before them, and trees that learn from them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import numpy as np

from pipelines.presentation import frame as frame_of
from pipelines.presentation import link, path, plots, table
from pipelines.ranking.config import DatasetConfig, RankerConfig
from pipelines.resources import Platform
from pipelines.results.artifacts import VersionNotes, finish_artifact
from pipelines.results.comparison import compared
from pipelines.results.store import StepResult, combined_digest
from pipelines.runs.progress import telling
from registry.contracts import ArtifactKind

_TOLD_EVERY = 500


class DatasetStep(DatasetConfig, dg.Config):
    """Say which decisions become training rows."""


class RankerStep(RankerConfig, dg.Config):
    """Say how the gradient-boosted trees are grown."""


@dg.asset(
    deps=["features"],
    group_name="ranking",
    kinds={"feast", "postgres"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    description="Decisions after T0, and the people whom the first stage would have shown, with the features known at "
    "each: a point-in-time join through Feast.",
)
def ranking_dataset(
    context: dg.AssetExecutionContext,
    config: DatasetStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
    embeddings: StepResult,
) -> dg.MaterializeResult[Any]:
    """Build the rows of both windows, from both twins of the first stage, and join their features."""
    from feature_repo.schema import offered_schema
    from feature_repo.store import apply_catalogue, historical_ranking_features, open_feature_store
    from pipelines.ranking.files import RankingRows, save_rows
    from pipelines.ranking.rows import WindowRows, choice_rows, like_rows
    from pipelines.ranking.windows import TrainingGround
    from registry.models.ranker import ListPolicy
    from registry.scoring.ranking import policy_for

    tell = telling(context.log.info, platform)

    def told_each(what: str) -> Callable[[int, int], None]:
        return lambda done, of: tell(f"{what} {done} of {of}") if done % _TOLD_EVERY == 0 else None

    serving = platform.settings.serving
    ground = TrainingGround.of(platform, embeddings, interactions, config.last_likes)
    policy = policy_for(ListPolicy(), serving.aggregator, serving.requester_weight)
    rows_of: list[WindowRows] = []
    windows = {
        "early": ground.early(),
        "missing": ground.missing(judged=False),
        "late": ground.late(),
        "missing, judged": ground.missing(judged=True),
    }
    for name, window in windows.items():
        # Pairs that were held back have no instant of their own, at which it could be said what was known of them.
        decided = like_rows(window, config, told_each("visit")) if name in {"early", "late"} else WindowRows.concat([])
        listed = choice_rows(window, config, policy, serving.n_candidates, told_each("list"))
        context.log.info("%s window: %d decisions, %d candidates of lists", name, len(decided), len(listed))
        rows_of.append(WindowRows.concat([decided, listed]))
    parts = {**embeddings.parts, **ground.keep_stages()}
    every = WindowRows.concat(rows_of)
    frame = every.frame(ground.snapshot.people.user_ids)
    store = open_feature_store(platform.settings, platform.endpoints)
    apply_catalogue(store)
    began = platform.clock.monotonic()
    features = historical_ranking_features(store, frame)
    seconds = platform.clock.monotonic() - began
    context.log.info("point-in-time join of %d rows took %.1f s", len(frame), seconds)
    rows = RankingRows(
        features=features,
        labels=every.label,
        at_us=every.at_us,
        requester_ids=frame["requester_id"].to_numpy(),
        candidate_ids=frame["candidate_id"].to_numpy(),
        weights=every.weight,
        kind=every.kind,
        late=np.arange(len(every)) >= len(rows_of[0]) + len(rows_of[1]),
    )
    schema = offered_schema()
    with platform.results.staging("ranking_dataset") as scratch:
        staged = scratch / "rows"
        contents = save_rows(staged, rows)
        digest = combined_digest({"rows": contents, "schema": schema})
        directory = platform.results.adopt(staged, "ranking_dataset", digest)
    made = StepResult(
        asset="ranking_dataset", digest=digest, run_id=context.run.run_id, as_of=embeddings.as_of,
        t0=embeddings.t0, t1=embeddings.t1, inputs={**embeddings.inputs, "embeddings": embeddings.digest}, parts=parts,
        facts={**embeddings.facts, "rows": len(frame), "schema": schema, "last_likes": config.last_likes},
    )  # fmt: skip
    sample = frame.head(10).assign(event_timestamp=frame["event_timestamp"].head(10).astype(str))
    return dg.MaterializeResult(
        value=made,
        metadata={
            "dagster/row_count": len(frame),
            "decisions": int((rows.kind == 0).sum()),
            "candidates": int((rows.kind == 1).sum()),
            "like_rate": round(float(rows.labels[rows.kind == 0].mean()), 4) if (rows.kind == 0).any() else 0.0,
            "features": features.shape[1],
            "join_s": round(seconds, 2),
            "digest": digest,
            "feature_schema": len(schema.split()),
            "sample": frame_of(sample),
            "path": path(directory),
        },
    )


@dg.asset(
    group_name="ranking",
    kinds={"xgboost", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    description="Trees that say whom people choose and how probable a like is, the order that wins on held-out lists, "
    "and then the same trees on all rows.",
)
def ranker(
    context: dg.AssetExecutionContext,
    config: RankerStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
    ranking_dataset: StepResult,
) -> dg.MaterializeResult[Any]:
    """Grow on the early rows, judge lists on the late ones, grow again on all, log and register."""
    from pipelines.ranking.files import load_rows
    from pipelines.ranking.judging import judged_order, keep_judged
    from pipelines.ranking.learn import learn
    from pipelines.ranking.origin import lineage_of_ranker, ranker_result
    from pipelines.ranking.plots import lists_plot, training_figures
    from pipelines.ranking.tables import FeatureTables, named_importance
    from pipelines.ranking.windows import TrainingGround
    from registry.models.ranker import ATTRIBUTES

    dataset = ranking_dataset
    rows = load_rows(dataset.path)
    tell = telling(context.log.info, platform)

    def progress(what: str) -> Any:
        def grown(done: int, rounds: int, losses: dict[str, float], seconds: float) -> None:
            shown = ", ".join(f"{loss:.4f} on {name} rows" for name, loss in losses.items())
            tell(f"{what}: round {done} of at most {rounds}: log loss {shown}; {seconds:.1f} s")

        return grown

    early = learn(rows.take(~rows.late), config, progress=progress)
    ground = TrainingGround.of(platform, dataset, interactions, int(str(dataset.facts["last_likes"])))
    verdict = judged_order(platform, ground, early.ranker, rows, config=config, tell=tell)
    told = config.model_dump(mode="json") | {"last_likes": dataset.facts["last_likes"]}
    judged = keep_judged(platform, replace(early.ranker, policy=verdict.chosen), told)
    final = learn(rows, config, rounds=early.rounds, progress=progress)
    trained = replace(final.ranker, policy=verdict.chosen, judged=verdict.figures)
    report = early.report
    snapshot = snapshot_of(dataset, interactions)
    lineage, slots = lineage_of_ranker(trained, dataset, snapshot), platform.snapshot(snapshot).slots
    owners = {slot: name for name, slot in slots.items()}
    shown = replace(report, importance=named_importance(report, owners))
    figures = training_figures(shown) | {"held_out_lists": lists_plot(verdict.figures)}
    tables = FeatureTables.of(report, final, owners)
    # Serving describes pairs as these rows do, so it must know with how many likes.
    parameters = config.model_dump(mode="json", exclude={"threads"}) | {
        "last_likes": dataset.facts["last_likes"],
        ATTRIBUTES: dict(slots),
    }
    metrics = report.metrics() | verdict.metrics()
    registered = finish_artifact(
        platform,
        ArtifactKind.RANKER,
        lambda directory: trained.save(directory, lineage, parameters, metrics),
        VersionNotes(
            parameters, metrics, figures, tables.files(),
            {f"{name}_log_loss": losses for name, losses in report.curve.items()},
        ),
        context.run.run_id,
    )  # fmt: skip
    return dg.MaterializeResult(
        value=ranker_result(trained, registered, dataset, context.run.run_id, judged),
        metadata={
            **plots(figures),
            **compared(platform, {ArtifactKind.RANKER: registered.manifest}),
            "dagster/row_count": len(rows.labels),
            "version": registered.version,
            "order": str(verdict.figures["chosen"]),
            "orders": table(verdict.rows()),
            "mlflow": link(registered.run_url),
            "metrics": table([{"metric": name, "value": value} for name, value in metrics.items()]),
            **tables.shown(),
            "digest": registered.manifest.digest,
            "path": path(registered.directory),
        }
    )  # fmt: skip


def snapshot_of(result: StepResult, newest: StepResult) -> StepResult:
    """Return the interactions that `result` was made from, which may be older than the `newest`."""
    digest = result.inputs["interactions"]
    if newest.digest == digest and newest.as_of == result.as_of:
        return newest
    return newest.model_copy(
        update={
            "digest": digest,
            "as_of": result.as_of,
            "t0": result.t0,
            "t1": result.t1,
            "inputs": {"people": result.inputs["people"]},
        }
    )
