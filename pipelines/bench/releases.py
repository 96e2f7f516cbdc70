"""Releases for a benchmark world, by the real builders and in the real formats.

The ranker is trained by the real code on real decisions of the world. Its order is served whatever the evidence says:
ranking in both directions is the costly path, and that is what is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from feature_repo.layout import RANKING_FEATURES
from feature_repo.people import People
from feature_repo.schema import ranking_schema_digest
from feature_repo.transforms import profile_fingerprints, ranking_features
from pipelines.code_version import code_version
from pipelines.features.aggregates import vectors_at
from pipelines.features.events import Events, instant
from pipelines.ranking.config import DatasetConfig, RankerConfig
from pipelines.ranking.context import Factors, LikeHistory, pair_context
from pipelines.ranking.dataset import labelled_pairs, labels
from pipelines.ranking.train import train_ranker
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.index_build import build_candidate_index
from registry.cache import ReleaseCache
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.embedding import Embedding
from registry.item_index import BuildReport
from registry.ranker import Order, Ranker
from registry.release import Release, load_release

MAX_PAIRS: Final = 120_000
_BLOCK: Final = 20_000


@dataclass(frozen=True)
class RankerReport:
    """What the ranker of a world was trained on and how well it did."""

    rows: int
    trees: int
    features: int
    auc: float


def train_bench_ranker(
    people: People, events: Events, embedding: Embedding, *, after_us: int, until_us: int, seed: int
) -> tuple[Ranker, RankerReport]:
    """Train on first decisions with after < time <= until, described as of `after_us`.

    `people` are everybody without activity; the embedding must know nothing of decisions after `after_us`.
    """
    pairs = labelled_pairs(events, after_us, until_us, DatasetConfig(max_rows=MAX_PAIRS, seed=seed))
    activity, reciprocity = vectors_at(events, instant(after_us))
    as_of = People(people.user_ids, people.profile, people.attributes, activity, reciprocity)
    actors, targets = pairs.actor.astype(np.int64), pairs.target.astype(np.int64)
    context = pair_context(
        actors,
        targets,
        pairs.at_us,
        Factors.of(embedding, people.user_ids, inputs_of(people, after_us / 1e6)),
        likes=LikeHistory(events),
        last_likes=DatasetConfig().last_likes,
        pending_likes=False,
    )
    features = np.empty((len(pairs), len(RANKING_FEATURES)), dtype=np.float32)
    for start in range(0, len(pairs), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(pairs)))
        features[rows] = ranking_features(
            as_of.take(actors[rows]), as_of.take(targets[rows]), context.take(rows), pairs.at_us[rows] / 1e6
        )
    booster, report = train_ranker(
        features, labels(pairs), pairs.at_us, people.user_ids[actors], RankerConfig(seed=seed)
    )
    columns = [RANKING_FEATURES.index(name) for name in report.feature_names]
    ranker = Ranker.from_booster(
        booster, report.feature_names, order=Order.RANKER, canary_features=features[:32][:, columns], fills=True
    )
    return ranker, RankerReport(report.rows, report.rounds, len(report.feature_names), round(report.auc, 4))


def write_release(
    cache: ReleaseCache,
    number: int,
    embedding: Embedding,
    ranker: Ranker,
    visible: People,
    *,
    at_s: float,
    index_kind: str = "auto",
    tell: Callable[[str], None] = lambda _what: None,
) -> tuple[Release, BuildReport]:
    """Write embedding, index and ranker as version `number` of each into the cache, load them and return the release.

    `visible` are the people to index; nothing points at the release yet: `cache.remember` does.
    """
    lineage = {"dataset_digest": f"bench-{number}", "code_version": code_version()}
    tell("embedding")
    made = _publish(cache, ArtifactKind.EMBEDDING, number, lambda path: embedding.save(path, lineage))
    lineage["embedding_digest"] = made
    tell("index")
    config = _index_config(index_kind)
    index, report = build_candidate_index(
        embedding, visible.user_ids, inputs_of(visible, at_s), config, fingerprints=profile_fingerprints(visible)
    )
    _publish(cache, ArtifactKind.INDEX, number, lambda path: index.save(path, lineage, metrics=report.metrics()))
    tell("ranker")
    schema = {**lineage, "feature_schema_digest": ranking_schema_digest()}
    parameters = {"last_likes": DatasetConfig().last_likes}
    _publish(cache, ArtifactKind.RANKER, number, lambda path: ranker.save(path, schema, parameters))
    directories = {kind: directory_of(cache, kind, number) for kind in ArtifactKind}
    tell("trial")
    release = load_release(
        directories,
        ReleaseVersions(number, number, number),
        feature_schema_digest=ranking_schema_digest(),
        feature_names=RANKING_FEATURES,
    )
    return release, report


def directory_of(cache: ReleaseCache, kind: ArtifactKind, number: int) -> Path:
    """Return where version `number` of an artefact lies in the cache."""
    return next((cache.root / kind.value).glob(f"{number}-*"))


def _publish(cache: ReleaseCache, kind: ArtifactKind, number: int, save: Callable[[Path], Any]) -> str:
    """Save an artefact and move it to the place where the cache looks for its digest; return the digest."""
    staged = cache.root / kind.value / f"new-{number}"
    digest = str(save(staged).digest)
    staged.rename(cache.directory(kind, number, digest))
    return digest


def _index_config(kind: str) -> Any:
    from pipelines.retrieval.config import IndexBuildConfig

    return IndexBuildConfig.model_validate({"kind": kind})
