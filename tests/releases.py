"""A tiny world with a known right answer, as artefacts: sixty people in two camps that like their own kind."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import xgboost

from registry.contracts import ArtifactKind, ReleaseVersions
from registry.models.artifacts import read_manifest
from registry.models.embedding import Embedding, EmbeddingParameters, item_vectors, query_vectors
from registry.models.item_index import IndexConfig, ItemIndex
from registry.models.ranker import Ranker
from registry.promotion.gates import GateReport, GateResult, write_report
from registry.store import ModelRegistry
from tests.fakes import MemoryRegistry

N_PEOPLE = 60
DIMENSIONS = 4
CONTENT_WIDTH = 3
FEATURES = ("score_forward", "score_backward", "age_gap", "distance_km")
SCHEMA = "5c" * 32
"""Feature schema digest that the tiny rankers were trained on."""


def make_embedding(seed: int = 0) -> Embedding:
    """People 1..60: odd ids like odd ids, even ids like even ids, in both roles."""
    rng = np.random.default_rng(seed)
    ids = np.arange(1, N_PEOPLE + 1, dtype=np.int64)
    camp = np.where(ids % 2 == 1, 1.0, -1.0)[:, None]
    direction = rng.normal(size=(1, DIMENSIONS))
    direction /= np.linalg.norm(direction)
    chooser = (camp * direction + rng.normal(scale=0.05, size=(N_PEOPLE, DIMENSIONS))).astype(np.float32)
    chosen = (camp * direction + rng.normal(scale=0.05, size=(N_PEOPLE, DIMENSIONS))).astype(np.float32)
    weights = np.zeros((CONTENT_WIDTH, 2 * DIMENSIONS), dtype=np.float32)
    weights[0] = np.concatenate([direction[0], direction[0]])
    return Embedding(
        ids,
        chooser,
        chosen,
        weights,
        np.zeros(2 * DIMENSIONS, dtype=np.float32),
        EmbeddingParameters(alpha=10.0, pass_confidence=2.0, regularization=1.0),
    )


def make_index(embedding: Embedding, config: IndexConfig | None = None) -> ItemIndex:
    """Index everybody of an embedding."""
    vectors = item_vectors(embedding.chooser, embedding.chosen)
    queries = query_vectors(embedding.chooser, embedding.chosen, 0.5)
    return ItemIndex.build(embedding.user_ids, vectors, config or IndexConfig(threads=1), queries)[0]


def make_ranker(seed: int = 0, feature_names: Sequence[str] = FEATURES) -> Ranker:
    """Learn that P(like) grows with the first feature."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(400, len(feature_names))).astype(np.float32)
    labels = (features[:, 0] + 0.3 * rng.normal(size=400) > 0).astype(np.float32)
    matrix = xgboost.DMatrix(features, labels, feature_names=list(feature_names))
    parameters = {"objective": "binary:logistic", "max_depth": 2, "seed": seed, "nthread": 1}
    booster = xgboost.train(parameters, matrix, num_boost_round=8)
    return Ranker.from_booster(booster, feature_names, canary_features=features)


def write_release(
    root: Path, seed: int = 0, *, feature_names: Sequence[str] = FEATURES, schema: str = SCHEMA
) -> dict[ArtifactKind, Path]:
    """Write the three artefacts of a coherent release below `root`."""
    paths = {kind: root / f"{kind.value}-{seed}" for kind in ArtifactKind}
    embedding = make_embedding(seed)
    digest = embedding.save(paths[ArtifactKind.EMBEDDING], {"dataset_digest": f"data-{seed}"}).digest
    make_index(embedding).save(paths[ArtifactKind.INDEX], {"embedding_digest": digest})
    make_ranker(seed, feature_names).save(
        paths[ArtifactKind.RANKER], {"embedding_digest": digest, "feature_schema": schema}
    )
    return paths


def register_release(
    registry: MemoryRegistry, paths: dict[ArtifactKind, Path], candidate: str | None = None
) -> ReleaseVersions:
    """Register the artefacts of a release in the in-memory registry, as one that passed its gates."""
    versions = ReleaseVersions.of(
        {kind: registry.register(kind, path, release_candidate=candidate) for kind, path in paths.items()}
    )
    judge(registry, versions)
    return versions


def judge(registry: ModelRegistry, *releases: ReleaseVersions, passed: bool = True) -> None:
    """Write a report of one gate on each release."""
    for versions in releases:
        write_report(registry, gate_report(versions, passed=passed))


def gate_report(
    versions: ReleaseVersions, *, passed: bool = True, judged_at: datetime = datetime(2026, 6, 1, tzinfo=UTC)
) -> GateReport:
    """Return a report that says how an index with a recall of 0.97, or else 0.5, stands to a gate at 0.9."""
    value = 0.97 if passed else 0.5
    why = f"index recall {value} is {'not ' if passed else ''}below 0.9."
    result = GateResult(
        name="recall",
        metric="index_recall",
        value=value,
        direction="higher",
        threshold=0.9,
        passed=passed,
        why=why,
    )
    return GateReport(release=versions.release_id, policy="f" * 64, judged_at=judged_at, results=(result,))


def digest_of(path: Path) -> str:
    """Return the digest of an artefact."""
    return read_manifest(path).digest
