"""Rebuild the index of an embedding over the people of a snapshot: what the asset and the benchmark both run.

The embedding is read, never fitted again: people with decisions since the fit are brought up to date by one half-step,
people it does not know enter by their profile. So scores stay those that the ranker was trained with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from feature_repo.transforms import profile_fingerprints
from pipelines.features.events import Events
from pipelines.results.inputs import DataSnapshot, before_window, microseconds_of
from pipelines.results.store import StepResult
from pipelines.retrieval.config import IndexBuildConfig
from pipelines.retrieval.content import inputs_of
from pipelines.retrieval.index_build import build_candidate_index
from pipelines.retrieval.refresh import refreshed
from registry.contracts import Manifest
from registry.models.artifacts import read_manifest
from registry.models.embedding import Embedding
from registry.models.item_index import BuildReport, ItemIndex


@dataclass(frozen=True)
class Rebuilt:
    """The index, how its build went, how many factors were brought up to date, how many people were fitted.

    `embedding` holds the factors it was built from, `events` the interactions that may be learned from.
    """

    embedding: Embedding
    index: ItemIndex
    report: BuildReport
    recomputed: int
    known: int
    events: Events


def rebuilt(
    made: StepResult, snapshot: DataSnapshot, config: IndexBuildConfig, *, refresh: bool, tell: Callable[[str], None]
) -> Rebuilt:
    """Index everybody visible in `snapshot` by the embedding that `made` points at; `tell` hears of each step.

    Raises CorruptArtifact where the embedding is not what its pointer says.
    """
    embedding, recomputed = Embedding.load(made.path, made.digest), 0
    events, at_s = snapshot.events, snapshot.as_of.timestamp()
    tell(f"{len(events)} interactions in memory")
    everybody = snapshot.people
    tell(f"{len(everybody)} profiles in memory")
    manifest = read_manifest(made.path)
    learned = events.between(before_window(manifest.lineage), microseconds_of(snapshot.as_of))
    if refresh:
        since_us = learned_until_us(manifest)
        embedding, recomputed = refreshed(embedding, learned, since_us, inputs_of(everybody, at_s))
        tell(f"{recomputed} factors brought up to date")
    visible = everybody.take(np.flatnonzero(snapshot.users["visible"].to_numpy()))
    index, report = build_candidate_index(
        embedding,
        visible.user_ids,
        inputs_of(visible, at_s),
        config,
        fingerprints=profile_fingerprints(visible),
        tell=tell,
    )
    index = replace(index, refreshed_factors=recomputed)
    return Rebuilt(embedding, index, report, recomputed, int(embedding.known(visible.user_ids).sum()), learned)


def learned_until_us(manifest: Manifest) -> int:
    """Return the last microsecond that an embedding has learned from, by its lineage; 0 where it does not say."""
    told = manifest.lineage.get("t0") or manifest.lineage.get("as_of")
    return microseconds_of(datetime.fromisoformat(told)) if told else 0
