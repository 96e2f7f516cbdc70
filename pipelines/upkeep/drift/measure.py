"""Describe the latest decisions as the ranker in Production would see them, and compare them with its training rows."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pipelines.errors import MissingUpstream
from pipelines.results.artifacts import artifact_directory, production_or_newest
from pipelines.upkeep.drift.config import DriftConfig
from registry.contracts import PRODUCTION, ArtifactKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipelines.resources import Platform
    from pipelines.results.store import StepResult
    from registry.models.ranker import Ranker

LIKE_RATE = "like_rate"


@dataclass(frozen=True)
class Drift:
    """The index of every feature and of the like rate, the one that moved furthest first, and what it compares."""

    release: str
    dataset: str
    psi: dict[str, float]
    like_rates: tuple[float, float]
    rows: tuple[int, int]

    @property
    def worst(self) -> tuple[str, float]:
        """Return what moved furthest and by how much."""
        return next(iter(self.psi.items()))


def measure_drift(
    platform: "Platform",
    config: DriftConfig,
    *,
    interactions: "StepResult | None",
    embeddings: "StepResult | None",
    candidate_index: "StepResult | None",
) -> Drift | str:
    """Compare the decisions of the last days with the rows of Production's ranker, or say why that is impossible."""
    from feature_repo.layout import RANKING_FEATURES
    from pipelines.evaluation.drift import psi
    from pipelines.ranking.errors import NoLabels
    from pipelines.ranking.files import load_rows
    from pipelines.ranking.rows import RowKind
    from registry.errors import IncoherentRelease
    from registry.models.artifacts import read_manifest
    from registry.models.ranker import Ranker

    try:
        release = platform.registry.resolve_stage(PRODUCTION).release_id
    except IncoherentRelease as reason:
        return str(reason)
    standing = platform.registry.in_stage(PRODUCTION)[ArtifactKind.RANKER]
    directory = artifact_directory(platform, ArtifactKind.RANKER, standing.digest or "", standing.version)
    manifest = read_manifest(directory)
    dataset = manifest.lineage.get("ranking_dataset_digest", "")
    if not dataset or not platform.results.has("ranking_dataset", dataset):
        return f"the training rows of ranker {standing.version} are not kept any more: train and promote a new one"
    rows = load_rows(platform.results.path("ranking_dataset", dataset))
    rows = rows.take(rows.kind == RowKind.LIKE)
    if interactions is None:
        raise MissingUpstream("no `interactions` were photographed yet; run the job `materialize_features` first")
    embedding = production_or_newest(platform, ArtifactKind.EMBEDDING, embeddings)
    index = production_or_newest(platform, ArtifactKind.INDEX, candidate_index)
    last_likes = int(str(manifest.parameters.get("last_likes", 5)))
    try:
        features, labels = current_rows(
            platform, config, last_likes, interactions=interactions, embedding=embedding, index=index
        )
    except NoLabels as reason:
        return str(reason)
    if labels.size < config.min_rows:
        return f"{labels.size} decisions in {config.days:g} days are too few to tell drift from chance"
    ranker = Ranker.load(directory, RANKING_FEATURES, threads=1)
    moved = drift_of_features(ranker, rows.features, features) | {LIKE_RATE: psi(rows.labels, labels)}
    return Drift(
        release=release,
        dataset=dataset,
        psi=dict(sorted(moved.items(), key=lambda item: -item[1])),
        like_rates=(float(rows.labels.mean()), float(labels.mean())),
        rows=(int(rows.labels.size), int(labels.size)),
    )


def drift_of_features(
    ranker: "Ranker", then: "npt.NDArray[np.float32]", now: "npt.NDArray[np.float32]"
) -> dict[str, float]:
    """Return the index of each feature of the ranker by the name that people know it by; rows are float32[n, k]."""
    from feature_repo.layout import RANKING_FEATURES
    from pipelines.evaluation.drift import feature_psi
    from registry.models.feature_labels import readable

    columns = [RANKING_FEATURES.index(name) for name in ranker.feature_names]
    names = [readable(name, ranker.attributes) for name in ranker.feature_names]
    return feature_psi(then[:, columns], now[:, columns], names)


def current_rows(
    platform: "Platform",
    config: DriftConfig,
    last_likes: int,
    *,
    interactions: "StepResult",
    embedding: "StepResult",
    index: "StepResult",
) -> "tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]":
    """Return features float32[n, k] and labels float32[n] of the first decisions of the last days.

    Raises:
        NoLabels: there was none.
    """
    from feature_repo.population.people import People
    from feature_repo.population.population import Population
    from feature_repo.store import historical_ranking_features, open_feature_store
    from pipelines.ranking.config import DatasetConfig
    from pipelines.ranking.requests import PastRequests
    from pipelines.ranking.rows import Window, like_rows
    from pipelines.ranking.sessions import has_decided
    from pipelines.results.inputs import microseconds_of
    from pipelines.retrieval.dataset import first_decisions
    from registry.models.artifacts import verify_artifact
    from registry.models.embedding import Embedding
    from registry.models.item_index import ItemIndex
    from registry.models.neighbours import Neighbours
    from registry.scoring.first_stage import FittedStage

    snapshot = platform.snapshot(interactions)
    until_us = microseconds_of(interactions.as_of)
    after_us = microseconds_of(interactions.as_of - timedelta(days=config.days))
    manifest = verify_artifact(index.path, index.digest)
    stage = FittedStage(
        Embedding.load(embedding.path, embedding.digest),
        ItemIndex.load(index.path, verified=manifest),
        Neighbours.load(index.path, manifest),
        last_likes,
    )
    requests = PastRequests(snapshot.people, snapshot.events, platform.settings.ranking.pending_likes)
    decided = first_decisions(snapshot.events).between(after_us, until_us)
    history = has_decided(snapshot.events.between(None, after_us))
    chosen = DatasetConfig(max_rows=config.max_rows, last_likes=last_likes, seed=config.seed)
    rows = like_rows(Window(stage, Population.build(People.empty()), requests, decided, history), chosen)
    store = open_feature_store(platform.settings, platform.endpoints)
    return historical_ranking_features(store, rows.frame(snapshot.people.user_ids)), rows.label
