"""Candidate generation: factors of everybody, and the index in which they are found."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from pipelines.artifacts import Explanation, finish_artifact, production_or_newest
from pipelines.comparison import compared
from pipelines.launchpad import launch_checked, read_config
from pipelines.lineage import lineage_of
from pipelines.presentation import link, path, plots, table
from pipelines.progress import telling
from pipelines.resources import Platform
from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig
from pipelines.state import Current
from registry.contracts import ArtifactKind

if TYPE_CHECKING:
    from pipelines.artifacts import Registered


class IndexStep(IndexBuildConfig):
    """Say which index is built and how fresh its people are."""

    refresh: bool = Field(
        default=True, description="bring people with decisions since the fit up to date before they are indexed"
    )


@dg.asset(
    deps=["people", "interactions", "features"],
    group_name="retrieval",
    kinds={"implicit", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    config_schema=launch_checked(EmbeddingConfig),
    description="Two factors per person, P who chooses and Q who is chosen, from the decisions up to T0.",
)
def embeddings(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
    """Fit the factors, log and register them."""
    from pipelines.evaluation.windows import split_windows
    from pipelines.inputs import before_window, microseconds_of
    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.factorise import fit_embedding
    from pipelines.retrieval.plots import embedding_norms

    config = read_config(context, EmbeddingConfig)
    pointer = platform.state.require("interactions")
    snapshot = platform.snapshot(pointer)
    if pointer.t0 is None:
        split_windows(snapshot.events)  # says why there are no windows
    t0_us = microseconds_of(pointer.t0 or pointer.as_of)
    people = snapshot.people

    tell = telling(context.log.info, platform)

    def progress(iteration: int, iterations: int, seconds: float) -> None:
        tell(f"iteration {iteration} of {iterations} took {seconds:.2f} s")

    embedding, report = fit_embedding(
        snapshot.events.between(before_window(pointer.facts), t0_us),
        people.user_ids,
        inputs_of(people, t0_us / 1e6),
        config,
        progress,
    )
    figures = {"embedding_norms": embedding_norms(embedding)}
    since = pointer.facts.get("since")
    lineage = lineage_of(pointer, since=None if since is None else str(since))
    registered = finish_artifact(
        platform,
        ArtifactKind.EMBEDDING,
        lambda directory: embedding.save(directory, lineage, report.metrics()),
        Explanation(config.model_dump(mode="json"), report.metrics(), figures, {}),
        context.run.run_id,
    )
    _publish(platform, registered, pointer, context.run.run_id, {})
    return dg.MaterializeResult(
        metadata=_metadata(platform, registered, report.metrics(), figures)
        | {"dagster/row_count": report.people, "t0": str(pointer.t0), "dimensions": report.dimensions}
    )


@dg.asset(
    deps=["people", "interactions", "embeddings"],
    group_name="retrieval",
    kinds={"faiss", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    config_schema=launch_checked(IndexStep),
    description="Everybody visible in FAISS, tuned to a stated recall against exact search.",
)
def candidate_index(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Any]:
    """Index everybody visible now, with the embedding of this run or else the one in Production."""
    from dataclasses import asdict

    from pipelines.retrieval.plots import recall_curve
    from pipelines.retrieval.rebuild import rebuilt

    began_s = platform.clock.monotonic()

    def tell(what: str) -> None:
        context.log.info("after %.1f s: %s", platform.clock.monotonic() - began_s, what)

    config = read_config(context, IndexStep)
    pointer = platform.state.require("interactions")
    made = platform.state.find("embeddings")
    if made is None or made.run_id != context.run.run_id:
        made = production_or_newest(platform, ArtifactKind.EMBEDDING)
    context.log.info("indexing with embedding version %s (%s)", made.version, made.digest[:12])
    build = IndexBuildConfig(**config.model_dump(exclude={"refresh"}))
    made_anew = rebuilt(made, platform.snapshot(pointer), build, refresh=config.refresh, tell=tell)
    index, report = made_anew.index, made_anew.report
    metrics = report.metrics() | {
        "index_refreshed_factors": float(made_anew.recomputed),
        "index_people_known": float(made_anew.known),
    }
    figures = {"recall_against_nprobe": recall_curve(report, config.target_recall)}
    lineage = lineage_of(pointer, embedding_digest=made.digest)
    registered = finish_artifact(
        platform,
        ArtifactKind.INDEX,
        lambda directory: index.save(directory, lineage, config.model_dump(mode="json"), metrics),
        Explanation(config.model_dump(mode="json"), metrics, figures, {}),
        context.run.run_id,
    )
    tell(f"saved and registered as version {registered.version}")
    _publish(platform, registered, pointer, context.run.run_id, {"embeddings": made.digest})
    return dg.MaterializeResult(
        metadata=_metadata(platform, registered, metrics, figures)
        | {
            "dagster/row_count": report.people,
            "kind": report.kind.value,
            "reached_target": report.reached,
            "embedding_version": made.version,
            "from_profile": report.people - made_anew.known,
            "recall_curve": table([asdict(point) for point in report.curve]),
        }
    )


def _publish(
    platform: Platform, registered: "Registered", snapshot: Current, run_id: str, inputs: dict[str, str]
) -> None:
    kind = registered.manifest.kind
    platform.state.publish(
        Current(
            asset="embeddings" if kind is ArtifactKind.EMBEDDING else "candidate_index",
            path=registered.directory,
            digest=registered.manifest.digest,
            run_id=run_id,
            as_of=snapshot.as_of,
            t0=snapshot.t0,
            t1=snapshot.t1,
            version=registered.version,
            inputs={**snapshot.inputs, "interactions": snapshot.digest, **inputs},
        )
    )


def _metadata(
    platform: Platform, registered: "Registered", metrics: dict[str, float], figures: dict[str, bytes]
) -> dict[str, Any]:
    return {
        **plots(figures),
        **compared(platform, {registered.manifest.kind: registered.manifest}),
        "version": registered.version,
        "mlflow": link(registered.run_url),
        "metrics": table([{"metric": name, "value": value} for name, value in metrics.items()]),
        "digest": registered.manifest.digest,
        "path": path(registered.directory),
    }
