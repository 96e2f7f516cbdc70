"""The second stage: labelled pairs with what was known just before them, and trees that learn from them."""

from typing import Any

import dagster as dg

from pipelines.artifacts import Explanation, finish_artifact
from pipelines.comparison import compared
from pipelines.launchpad import launch_checked, read_config
from pipelines.lineage import lineage_of
from pipelines.presentation import frame as frame_of
from pipelines.presentation import link, path, plots, table
from pipelines.progress import telling
from pipelines.ranking.config import DatasetConfig, RankerConfig
from pipelines.resources import Platform
from pipelines.state import Current, combined_digest
from registry.contracts import ArtifactKind

SHOWN_FEATURES = 40


@dg.asset(
    deps=["embeddings", "features"],
    group_name="ranking",
    kinds={"feast", "postgres"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    config_schema=launch_checked(DatasetConfig),
    description="First decisions in (T0, T1] with the features known at each: a point-in-time join through Feast.",
)
def ranking_dataset(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Label the pairs of the ranker's window and join their features as of each decision."""
    from feature_repo.schema import ranking_schema_digest
    from feature_repo.store import apply_catalogue, historical_ranking_features, open_feature_store
    from pipelines.inputs import Snapshot, microseconds_of
    from pipelines.ranking.context import Factors
    from pipelines.ranking.dataset import context_of, labelled_pairs, pairs_frame
    from pipelines.ranking.files import RankingRows, save_rows
    from pipelines.retrieval.content import inputs_of
    from registry.embedding import Embedding

    config = read_config(context, DatasetConfig)
    made = platform.state.require("embeddings")
    snapshot: Snapshot = platform.snapshot(snapshot_of(platform, made))
    t0_us, t1_us = microseconds_of(made.t0 or made.as_of), microseconds_of(made.t1 or made.as_of)
    people = snapshot.people
    factors = Factors.of(Embedding.load(made.path, made.digest), people.user_ids, inputs_of(people, t0_us / 1e6))
    pairs = labelled_pairs(snapshot.events, t0_us, t1_us, config)
    known = context_of(pairs, snapshot.events, factors, config, pending_likes=platform.settings.ranking.pending_likes)
    frame = pairs_frame(pairs, known)
    store = open_feature_store(platform.settings, platform.endpoints)
    apply_catalogue(store, activity_ttl_days=platform.settings.features.ttl_days)
    began = platform.clock.monotonic()
    features = historical_ranking_features(store, frame)
    seconds = platform.clock.monotonic() - began
    context.log.info("point-in-time join of %d rows took %.1f s", len(frame), seconds)
    rows = RankingRows(
        features=features,
        labels=frame["label"].to_numpy(),
        at_us=pairs.at_us,
        requester_ids=frame["requester_id"].to_numpy(),
        candidate_ids=frame["candidate_id"].to_numpy(),
    )
    schema = ranking_schema_digest()
    inputs = {**made.inputs, "embeddings": made.digest}
    with platform.state.staging("ranking_dataset") as scratch:
        staged = scratch / "rows"
        contents = save_rows(staged, rows)
        digest = combined_digest({"rows": contents, "schema": schema})
        directory = platform.state.adopt(staged, "ranking_dataset", digest)
    platform.state.publish(
        Current(
            asset="ranking_dataset", path=directory, digest=digest, run_id=context.run.run_id, as_of=made.as_of,
            t0=made.t0, t1=made.t1, inputs=inputs,
            facts={"rows": len(frame), "schema": schema, "last_likes": config.last_likes},
        )
    )  # fmt: skip
    sample = frame.head(10).assign(event_timestamp=frame["event_timestamp"].head(10).astype(str))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(frame),
            "like_rate": round(float(rows.labels.mean()), 4),
            "features": features.shape[1],
            "join_s": round(seconds, 2),
            "digest": digest,
            "feature_schema": schema,
            "sample": frame_of(sample),
            "path": path(directory),
        }
    )


@dg.asset(
    deps=["ranking_dataset"],
    group_name="ranking",
    kinds={"xgboost", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    config_schema=launch_checked(RankerConfig),
    description="Trees that say how probable a directed like is; judged on the latest rows of the window.",
)
def ranker(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
    """Grow, judge, log and register the ranker."""
    from dataclasses import replace

    import pandas as pd

    from feature_repo.layout import RANKING_FEATURES
    from pipelines.ranking.files import load_rows
    from pipelines.ranking.plots import training_figures
    from pipelines.ranking.train import order_statistics, train_ranker
    from registry.feature_labels import is_free_slot, readable
    from registry.ranker import ATTRIBUTES, Ranker

    config = read_config(context, RankerConfig)
    dataset = platform.state.require("ranking_dataset")
    rows = load_rows(dataset.path)

    def progress(done: int, rounds: int, losses: dict[str, float], seconds: float) -> None:
        shown = ", ".join(f"{loss:.4f} on {name} rows" for name, loss in losses.items())
        tell(f"round {done} of at most {rounds}: log loss {shown}; {seconds:.1f} s")

    tell = telling(context.log.info, platform)
    booster, report = train_ranker(
        rows.features,
        rows.labels,
        rows.at_us,
        rows.requester_ids,
        config,
        candidate_ids=rows.candidate_ids,
        progress=progress,
    )
    columns = [RANKING_FEATURES.index(name) for name in report.feature_names]
    trained = Ranker.from_booster(
        booster,
        report.feature_names,
        order=report.order.order,
        canary_features=rows.features[:32][:, columns],
        fills=True,
        reference=order_statistics(rows.features[:, columns]),
    )
    embedding = dataset.inputs["embeddings"]
    lineage = lineage_of(
        snapshot_of(platform, dataset),
        embedding_digest=embedding,
        feature_schema_digest=str(dataset.facts["schema"]),
        ranking_dataset_digest=dataset.digest,
    )
    slots = platform.snapshot(snapshot_of(platform, dataset)).slots
    owners = {slot: name for name, slot in slots.items()}
    shown = replace(report, importance={readable(name, owners): share for name, share in report.importance.items()})
    figures = training_figures(shown)
    importance = [{"feature": name, "share_of_gain": share} for name, share in shown.importance.items()]
    # A slot that no attribute owns is no column of anybody's data.
    dropped = [
        {"feature": readable(name, owners), "why": why}
        for name, why in report.dropped.items()
        if not is_free_slot(name, owners)
    ]
    # Serving describes pairs as these rows do, so it must know with how many likes.
    parameters = config.model_dump(mode="json", exclude={"threads"}) | {
        "last_likes": dataset.facts["last_likes"],
        ATTRIBUTES: dict(slots),
    }
    registered = finish_artifact(
        platform,
        ArtifactKind.RANKER,
        lambda directory: trained.save(directory, lineage, parameters, report.metrics()),
        Explanation(
            parameters, report.metrics(), figures,
            {
                "feature_importance.csv": pd.DataFrame(importance).to_csv(index=False),
                "dropped_features.csv": pd.DataFrame(dropped, columns=["feature", "why"]).to_csv(index=False),
            },
            {f"{name}_log_loss": losses for name, losses in report.curve.items()},
        ),
        context.run.run_id,
    )  # fmt: skip
    platform.state.publish(
        Current(
            asset="ranker", path=registered.directory, digest=registered.manifest.digest, run_id=context.run.run_id,
            as_of=dataset.as_of, t0=dataset.t0, t1=dataset.t1, version=registered.version,
            inputs={**dataset.inputs, "ranking_dataset": dataset.digest}, facts={"order": report.order.order},
        )
    )  # fmt: skip
    return dg.MaterializeResult(
        metadata={
            **plots(figures),
            **compared(platform, {ArtifactKind.RANKER: registered.manifest}),
            "dagster/row_count": report.rows,
            "version": registered.version,
            "order": report.order.order,
            "order_evidence": f"AUC within people: {report.order.ranker:.4f}, retrieval {report.order.retrieval:.4f}",
            "mlflow": link(registered.run_url),
            "metrics": table([{"metric": name, "value": value} for name, value in report.metrics().items()]),
            "importance": table(importance[:SHOWN_FEATURES]),
            "dropped": table(dropped),
            "digest": registered.manifest.digest,
            "path": path(registered.directory),
        }
    )  # fmt: skip


def snapshot_of(platform: Platform, result: Current) -> Current:
    """Return the pointer of the interactions that `result` was made from, which may be older than the newest."""
    digest = result.inputs["interactions"]
    newest = platform.state.require("interactions")
    if newest.digest == digest and newest.as_of == result.as_of:
        return newest
    return newest.model_copy(
        update={
            "digest": digest,
            "path": platform.state.directory("interactions", digest),
            "as_of": result.as_of,
            "t0": result.t0,
            "t1": result.t1,
            "inputs": {"people": result.inputs["people"]},
        }
    )
