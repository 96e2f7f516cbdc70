"""Candidate generation: factors of everybody, and the index in which they are found."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from pipelines.io_manager import MAY_BE_MISSING
from pipelines.presentation import link, path, plots, table
from pipelines.resources import Platform
from pipelines.results.artifacts import ASSET_OF, VersionNotes, finish_artifact, production_or_newest
from pipelines.results.comparison import compared
from pipelines.results.lineage import lineage_of
from pipelines.results.store import StepResult
from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig, NeighboursConfig
from pipelines.retrieval.exposure.config import PricesConfig
from pipelines.retrieval.twins import EARLY, JUDGED, SPREAD, keep_twin
from pipelines.runs.progress import telling
from registry.contracts import ArtifactKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.results.artifacts import Registered
    from pipelines.results.inputs import DataSnapshot
    from pipelines.retrieval.exposure.sampling import Priced
    from pipelines.retrieval.rebuild import Rebuilt
    from pipelines.retrieval.tuning import Trial
    from registry.models.neighbours import Neighbours

_JUDGED_BY = ("merit", "ndcg_at_20_next", "ndcg_at_20_missing")


class EmbeddingStep(EmbeddingConfig, dg.Config):
    """Say how the embedding is fitted, and for how long its settings are searched for on the data at hand."""

    tuning_trials: int = Field(
        default=10,
        ge=0,
        le=1_000,
        description="settings tried on the last part of what may be learned from; 0 takes those given as they are",
    )
    tuning_seconds: float = Field(
        default=240.0, gt=0, le=86_400, description="no further setting is tried after so many seconds"
    )

    @property
    def fit(self) -> EmbeddingConfig:
        """Return the settings of the fit alone."""
        return EmbeddingConfig.model_validate(self.model_dump(include=set(EmbeddingConfig.model_fields)))


class IndexStep(IndexBuildConfig, PricesConfig, dg.Config):
    """Say which index is built, how fresh its people are, and which lists the prices of exposure come from."""

    refresh: bool = Field(
        default=True, description="bring people with decisions since the fit up to date before they are indexed"
    )

    @property
    def build(self) -> IndexBuildConfig:
        """Return the settings of the index alone."""
        return IndexBuildConfig.model_validate(self.model_dump(include=set(IndexBuildConfig.model_fields)))


@dg.asset(
    deps=["people", "features"],
    group_name="retrieval",
    kinds={"implicit", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    description="Two factors per person, P who chooses and Q who is chosen: tuned on the data at hand, fitted up to T0 "
    "and T1 for what is learned and judged from them, and at last on everything for what is released.",
)
def embeddings(
    context: dg.AssetExecutionContext,
    config: EmbeddingStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
) -> dg.MaterializeResult[Any]:
    """Tune the settings, fit the factors three times, log and register those of all data."""
    from pipelines.evaluation.spread import HeldBackPairs
    from pipelines.evaluation.windows import split_windows
    from pipelines.ranking.windows import SEED
    from pipelines.results.inputs import before_window, microseconds_of
    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.factorise import fit_embedding
    from pipelines.retrieval.meeting import MET
    from pipelines.retrieval.plots import embedding_norms
    from pipelines.retrieval.tuned import how_people_met, tuned_settings

    snapshot = platform.snapshot(interactions)
    if interactions.t0 is None:
        split_windows(snapshot.events)  # says why there are no windows
    people, since_us = snapshot.people, before_window(interactions.facts)
    t0, t1 = interactions.t0 or interactions.as_of, interactions.t1 or interactions.as_of
    tell = telling(context.log.info, platform)

    def progress(iteration: int, iterations: int, seconds: float) -> None:
        tell(f"iteration {iteration} of {iterations} took {seconds:.2f} s")

    earlier, t0_us = snapshot.events.between(since_us, microseconds_of(t0)), microseconds_of(t0)
    places = how_people_met(earlier, people, t0_us, config, tell=tell)
    chosen, trials = tuned_settings(platform, earlier, people, t0_us, config, meeting=places.meeting, tell=tell)
    since = interactions.facts.get("since")
    lineage = lineage_of(interactions, since=None if since is None else str(since))
    parts: dict[str, str] = {}
    for name, until in ((EARLY, t0), (JUDGED, t1)):
        until_us = microseconds_of(until)
        embedding, report = fit_embedding(
            snapshot.events.between(since_us, until_us), people.user_ids, inputs_of(people, until_us / 1e6), chosen
        )
        parts[name] = keep_twin(platform, name, embedding, {**lineage, "t0": until.isoformat()})
        tell(f"fitted up to {until.isoformat()}: {report.likes} likes")
    end_us = microseconds_of(interactions.as_of)
    spread = HeldBackPairs.of(snapshot.events.between(since_us, end_us), end_us, SEED)
    embedding, report = fit_embedding(spread.known, people.user_ids, inputs_of(people, end_us / 1e6), chosen)
    parts[SPREAD] = keep_twin(platform, SPREAD, embedding, lineage)
    tell(f"fitted without {len(spread.held_back)} decisions that are held back: {report.likes} likes")
    embedding, report = fit_embedding(
        snapshot.events.between(since_us, end_us), people.user_ids, inputs_of(people, end_us / 1e6), chosen, progress
    )
    figures = {"embedding_norms": embedding_norms(embedding)}
    metrics = report.metrics() | ({"tuned_merit": max(t.merit for t in trials)} if trials else {})
    # What is released has learned everything: a fold-in counts decisions from the end of the data on.
    released = {**lineage, "t0": interactions.as_of.isoformat(), "fitted_on": "everything"}
    registered = finish_artifact(
        platform,
        ArtifactKind.EMBEDDING,
        lambda directory: embedding.save(directory, released, metrics),
        VersionNotes(chosen.model_dump(mode="json"), metrics, figures, {}, search_curves(trials)),
        context.run.run_id,
    )
    return dg.MaterializeResult(
        value=_result(registered, interactions, context.run.run_id).model_copy(
            update={"parts": parts, "facts": {MET: places.meeting.value}}
        ),
        metadata=_metadata(platform, registered, metrics, figures)
        | {
            "dagster/row_count": report.people,
            "t0": str(interactions.t0),
            "dimensions": report.dimensions,
            "people_met": places.meeting.value,
            "place_of_passed": places.passed,
            "place_of_liked": places.liked,
            "settings": table([{"setting": key, "value": str(value)} for key, value in chosen.model_dump().items()]),
            "trials": table([_trial_row(trial) for trial in trials]),
        },
    )


def _trial_row(trial: "Trial") -> dict[str, float]:
    tried = trial.config
    return {
        "alpha": tried.alpha,
        "regularization": tried.regularization,
        "pass_confidence": tried.pass_confidence,
        "dimensions": float(tried.dimensions),
        "content_rounds": float(tried.content_rounds),
        "ndcg_at_20_next": round(trial.worth[0].ndcg, 5),
        "ndcg_at_20_missing": round(trial.worth[-1].ndcg, 5),
        "auc_next": round(0.5 + trial.worth[0].told_apart, 5),
        "auc_missing": round(0.5 + trial.worth[-1].told_apart, 5),
        "merit": round(trial.merit, 5),
        "seconds": round(trial.seconds, 2),
    }


def search_curves(trials: "Sequence[Trial]") -> dict[str, list[float]]:
    """Return what the lists of each trial came to, in the order tried: least squares tell no loss of their own."""
    rows = [_trial_row(trial) for trial in trials]
    return {f"trial_{name}": [row[name] for row in rows] for name in _JUDGED_BY} if rows else {}


@dg.asset(
    deps=["people"],
    ins={"embeddings": dg.AssetIn(metadata=MAY_BE_MISSING)},
    group_name="retrieval",
    kinds={"faiss", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    description="Everybody visible in FAISS, tuned to a stated recall against exact search, and neighbours by likes.",
)
def candidate_index(
    context: dg.AssetExecutionContext,
    config: IndexStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
    embeddings: StepResult | None,
) -> dg.MaterializeResult[Any]:
    """Index everybody visible now, with the embedding of this run or else the one in Production."""
    from dataclasses import asdict

    from pipelines.retrieval.content import inputs_of
    from pipelines.retrieval.neighbours import fit_neighbours
    from pipelines.retrieval.plots import recall_curve
    from pipelines.retrieval.rebuild import rebuilt

    began_s = platform.clock.monotonic()

    def tell(what: str) -> None:
        context.log.info("after %.1f s: %s", platform.clock.monotonic() - began_s, what)

    made = embeddings
    if made is None or made.run_id != context.run.run_id:
        made = production_or_newest(platform, ArtifactKind.EMBEDDING, made)
    context.log.info("indexing with embedding version %s (%s)", made.version, made.digest[:12])
    snapshot = platform.snapshot(interactions)
    made_anew = rebuilt(made, snapshot, config.build, refresh=config.refresh, tell=tell)
    index, report = made_anew.index, made_anew.report
    inputs = inputs_of(snapshot.people, snapshot.as_of.timestamp())
    neighbours = fit_neighbours(made_anew.events, NeighboursConfig(), inputs)
    tell(f"neighbours of {len(neighbours)} people")
    priced = _priced(platform, snapshot, made_anew, neighbours, config)
    tell(f"prices of exposure of {len(priced.prices)} people from {priced.lists} lists")
    metrics = (
        report.metrics()
        | priced.metrics()
        | {
            "index_refreshed_factors": float(made_anew.recomputed),
            "index_people_known": float(made_anew.known),
        }
    )
    figures = {"recall_against_nprobe": recall_curve(report, config.target_recall)}
    lineage = lineage_of(interactions, embedding_digest=made.digest)
    registered = finish_artifact(
        platform,
        ArtifactKind.INDEX,
        lambda directory: index.save(
            directory,
            lineage,
            config.model_dump(mode="json"),
            metrics,
            beside={**neighbours.writers(), **priced.prices.writers()},
        ),
        VersionNotes(config.model_dump(mode="json"), metrics, figures, {}),
        context.run.run_id,
    )
    tell(f"saved and registered as version {registered.version}")
    return dg.MaterializeResult(
        value=_result(registered, interactions, context.run.run_id, embeddings=made.digest),
        metadata=_metadata(platform, registered, metrics, figures)
        | {
            "dagster/row_count": report.people,
            "kind": report.kind.value,
            "reached_target": report.reached,
            "embedding_version": made.version,
            "from_profile": report.people - made_anew.known,
            "recall_curve": table([asdict(point) for point in report.curve]),
        },
    )


def _priced(
    platform: Platform, snapshot: "DataSnapshot", made: "Rebuilt", neighbours: "Neighbours", config: IndexStep
) -> "Priced":
    """Return prices of exposure from lists of the new index, by everything known now."""
    import numpy as np

    from feature_repo.population.population import Population
    from pipelines.ranking.requests import PastRequests
    from pipelines.results.inputs import microseconds_of
    from pipelines.retrieval.exposure.sampling import Market, fit_prices
    from registry.release import DEFAULT_LAST_LIKES
    from registry.scoring.first_stage import FittedStage

    people, settings = snapshot.people, platform.settings
    population = Population.build(people.take(np.flatnonzero(snapshot.users["visible"].to_numpy().astype(bool))))
    market = Market(
        FittedStage(made.embedding, made.index, neighbours, DEFAULT_LAST_LIKES),
        population,
        PastRequests(people, snapshot.events, settings.ranking.pending_likes),
        microseconds_of(snapshot.as_of) + 1,
        settings.serving.n_candidates,
    )
    return fit_prices(market, config, platform.clock.monotonic)


def _result(registered: "Registered", snapshot: StepResult, run_id: str, **inputs: str) -> StepResult:
    return StepResult(
        asset=ASSET_OF[registered.manifest.kind],
        digest=registered.manifest.digest,
        run_id=run_id,
        as_of=snapshot.as_of,
        t0=snapshot.t0,
        t1=snapshot.t1,
        version=registered.version,
        inputs={**snapshot.inputs, "interactions": snapshot.digest, **inputs},
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
