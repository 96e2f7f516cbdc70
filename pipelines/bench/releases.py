"""Releases for a benchmark world, by the real builders and in the real formats.

The ranker is trained by the real code on real decisions of the world. Its order is served whatever the evidence says:
ranking in both directions is the costly path, and that is what is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from feature_repo.layout import RANKING_FEATURES, TASTE_COLUMNS
from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.schema import offered_schema
from feature_repo.transforms import PairContext, profile_fingerprints, ranking_features
from pipelines.features.aggregates import vectors_at
from pipelines.features.events import Events, instant
from pipelines.ranking.config import DatasetConfig, RankerConfig
from pipelines.ranking.files import RankingRows
from pipelines.ranking.learn import learn
from pipelines.ranking.requests import PastRequests
from pipelines.ranking.rows import Window, WindowRows, choice_rows, like_rows
from pipelines.ranking.sessions import has_decided
from pipelines.results.code_version import code_version
from pipelines.retrieval.config import IndexBuildConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.dataset import first_decisions
from pipelines.retrieval.index_build import build_candidate_index
from pipelines.retrieval.neighbours import fit_neighbours
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.models.embedding import Embedding
from registry.models.item_index import BuildReport
from registry.models.neighbours import Neighbours
from registry.models.ranker import ForwardModel, ListPolicy, Order, Ranker
from registry.promotion.release_cache import ReleaseCache
from registry.release import Release, load_release
from registry.scoring.first_stage import FittedStage

MAX_PAIRS: Final = 60_000
MAX_LISTS: Final = 1_500
N_CANDIDATES: Final = 300
_BLOCK: Final = 20_000


@dataclass(frozen=True)
class RankerReport:
    """What the ranker of a world was trained on and how well it did."""

    rows: int
    trees: int
    features: int
    auc: float


def train_bench_ranker(
    people: People, visible: People, events: Events, embedding: Embedding, *, after_us: int, until_us: int, seed: int
) -> tuple[Ranker, RankerReport]:
    """Train on first decisions and lists with after < time <= until, described as of `after_us`.

    `people` are everybody without activity; the embedding must know nothing of decisions after `after_us`.
    """
    config = DatasetConfig(max_rows=MAX_PAIRS, max_lists=MAX_LISTS, seed=seed)
    activity, reciprocity = vectors_at(events, instant(after_us))
    as_of = People(people.user_ids, people.profile, people.attributes, activity, reciprocity)
    learned = events.between(None, after_us)
    index, _ = build_candidate_index(
        embedding, visible.user_ids, inputs_of(visible, after_us / 1e6), IndexBuildConfig(sample_queries=50)
    )
    neighbours = fit_neighbours(learned, inputs=inputs_of(people, after_us / 1e6))
    stage = FittedStage(embedding, index, neighbours, config.last_likes)
    window = Window(
        stage,
        Population.build(as_of.take(as_of.positions(visible.user_ids))),
        PastRequests(as_of, events),
        first_decisions(events).between(after_us, until_us),
        has_decided(learned),
    )
    rows = WindowRows.concat([like_rows(window, config), choice_rows(window, config, ListPolicy(), N_CANDIDATES)])
    features = np.empty((len(rows), len(RANKING_FEATURES)), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        context = PairContext(
            **{name: rows.context[part, column] for column, name in enumerate(TASTE_COLUMNS)},
            evidence=rows.context[part, len(TASTE_COLUMNS) :],
        )
        features[part] = ranking_features(
            as_of.take(rows.requester[part]), as_of.take(rows.candidate[part]), context, rows.at_us[part] / 1e6
        )
    made = learn(
        RankingRows(
            features, rows.label, rows.at_us, people.user_ids[rows.requester], people.user_ids[rows.candidate],
            rows.weight, rows.kind, np.zeros(len(rows), dtype=np.bool_),
        ),
        RankerConfig(seed=seed),
    )  # fmt: skip
    forward = ForwardModel.LIKE if made.choice is None else ForwardModel.CHOICE
    ranker = replace(made.ranker, policy=ListPolicy(Order.RANKER, forward))
    report = made.report
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
    neighbours: Neighbours | None = None,
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
    beside = {} if neighbours is None else neighbours.writers()
    _publish(
        cache,
        ArtifactKind.INDEX,
        number,
        lambda path: index.save(path, lineage, metrics=report.metrics(), beside=beside),
    )
    tell("ranker")
    schema = {**lineage, "feature_schema": offered_schema()}
    parameters = {"last_likes": DatasetConfig().last_likes}
    _publish(cache, ArtifactKind.RANKER, number, lambda path: ranker.save(path, schema, parameters))
    directories = {kind: directory_of(cache, kind, number) for kind in ArtifactKind}
    tell("trial")
    release = load_release(
        directories,
        ReleaseVersions(number, number, number),
        feature_schema=offered_schema(),
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
