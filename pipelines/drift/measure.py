"""Describe the latest decisions as the ranker in Production would see them, and compare them with its training rows."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pipelines.artifacts import artifact_directory, production_or_newest
from pipelines.drift.config import DriftConfig
from registry.contracts import PRODUCTION, ArtifactKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipelines.resources import Platform

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


def measure_drift(platform: "Platform", config: DriftConfig) -> Drift | str:
    """Compare the decisions of the last days with the rows of Production's ranker, or say why that is impossible."""
    from feature_repo.layout import RANKING_FEATURES
    from pipelines.evaluation.drift import feature_psi, psi
    from pipelines.ranking.errors import NoLabels
    from pipelines.ranking.files import load_rows
    from registry.artifacts import read_manifest
    from registry.errors import IncoherentRelease
    from registry.ranker import Ranker

    try:
        release = platform.registry.resolve_stage(PRODUCTION).release_id
    except IncoherentRelease as reason:
        return str(reason)
    standing = platform.registry.in_stage(PRODUCTION)[ArtifactKind.RANKER]
    directory = artifact_directory(platform, ArtifactKind.RANKER, standing.digest or "", standing.version)
    manifest = read_manifest(directory)
    dataset = manifest.lineage.get("ranking_dataset_digest", "")
    kept = platform.state.directory("ranking_dataset", dataset)
    if not dataset or not kept.exists():
        return f"the training rows of ranker {standing.version} are not on this disk: train and promote a new one"
    rows = load_rows(kept)
    try:
        features, labels = current_rows(platform, config, int(str(manifest.parameters.get("last_likes", 5))))
    except NoLabels as reason:
        return str(reason)
    if labels.size < config.min_rows:
        return f"{labels.size} decisions in {config.days:g} days are too few to tell drift from chance"
    names = Ranker.load(directory, RANKING_FEATURES, threads=1).feature_names
    columns = [RANKING_FEATURES.index(name) for name in names]
    moved = feature_psi(rows.features[:, columns], features[:, columns], names) | {LIKE_RATE: psi(rows.labels, labels)}
    return Drift(
        release=release,
        dataset=dataset,
        psi=dict(sorted(moved.items(), key=lambda item: -item[1])),
        like_rates=(float(rows.labels.mean()), float(labels.mean())),
        rows=(int(rows.labels.size), int(labels.size)),
    )


def current_rows(
    platform: "Platform", config: DriftConfig, last_likes: int
) -> "tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]":
    """Return features float32[n, k] and labels float32[n] of the first decisions of the last days.

    Raises:
        NoLabels: there was none.
    """
    from feature_repo.store import historical_ranking_features, open_feature_store
    from pipelines.inputs import microseconds_of
    from pipelines.ranking.config import DatasetConfig
    from pipelines.ranking.context import Factors
    from pipelines.ranking.dataset import context_of, labelled_pairs, pairs_frame
    from pipelines.retrieval.content import inputs_of
    from registry.embedding import Embedding

    pointer = platform.state.require("interactions", "materialize_features")
    snapshot = platform.snapshot(pointer)
    until_us = microseconds_of(pointer.as_of)
    after_us = microseconds_of(pointer.as_of - timedelta(days=config.days))
    chosen = DatasetConfig(max_rows=config.max_rows, last_likes=last_likes, seed=config.seed)
    pairs = labelled_pairs(snapshot.events, after_us, until_us, chosen)
    embedding = production_or_newest(platform, ArtifactKind.EMBEDDING)
    people = snapshot.people
    factors = Factors.of(
        Embedding.load(embedding.path, embedding.digest), people.user_ids, inputs_of(people, after_us / 1e6)
    )
    pending = platform.settings.ranking.pending_likes
    frame = pairs_frame(pairs, context_of(pairs, snapshot.events, factors, chosen, pending_likes=pending))
    store = open_feature_store(platform.settings, platform.endpoints)
    return historical_ranking_features(store, frame), frame["label"].to_numpy()
