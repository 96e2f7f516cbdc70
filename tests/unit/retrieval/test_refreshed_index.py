"""Factors brought up to date are still an embedding's own; those of another embedding, frame or person are not."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from feature_repo.population.people import People
from feature_repo.transforms import profile_vectors
from pipelines.features.events import Events
from pipelines.ingest.world.synthetic import World
from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig
from pipelines.retrieval.content import ContentInputs, inputs_of
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.index_build import build_candidate_index
from pipelines.retrieval.refresh import refreshed
from registry.models.agreement import foreign_factors
from registry.models.embedding import Embedding
from registry.models.item_index import ItemIndex
from tests.world_frames import interaction_chunks, users_frame

CONVERGED = EmbeddingConfig(dimensions=16, threads=1)
HARDLY_BEGUN = CONVERGED.model_copy(update={"iterations": 1, "content_rounds": 1})
FITS = pytest.mark.parametrize("config", [CONVERGED, HARDLY_BEGUN], ids=["converged", "hardly-begun"])
SHARES = pytest.mark.parametrize("fitted", [0.1, 0.5], ids=["nearly-all-refreshed", "many-refreshed"])


@cache
def village() -> tuple[Events, ContentInputs]:
    """Three hundred people and all that happened among them."""
    world = World.generate(300, 7, interactions_per_person=30)
    users = users_frame(world)
    people = People.build(users["user_id"].to_numpy(np.int64), profile=profile_vectors(users))
    happened = pd.concat([chunk.to_pandas() for chunk in interaction_chunks(world)])
    events = Events.from_frame(happened, people.user_ids)
    return events, inputs_of(people, float(events.at_us.max()) / 1e6)


@cache
def fitted_and_refreshed(config: EmbeddingConfig, fitted: float) -> tuple[Embedding, Embedding, int]:
    """Fit on the first share of all events, refresh with the rest, and say how many factors that solved anew."""
    events, inputs = village()
    since_us = int(np.quantile(events.at_us, fitted))
    embedding, _ = fit_embedding(events.between(None, since_us), events.user_ids, inputs, config)
    return embedding, *refreshed(embedding, events, since_us, inputs)


def indexed(embedding: Embedding, refreshed_factors: int = 0, kind: str = "flat") -> ItemIndex:
    events, inputs = village()
    config = IndexBuildConfig.model_validate({"kind": kind})
    index, _ = build_candidate_index(embedding, events.user_ids, inputs, config)
    return replace(index, refreshed_factors=refreshed_factors)


def turned(embedding: Embedding, seed: int) -> Embedding:
    """Return the same embedding in another frame: every score between its people stays as it was."""
    d = embedding.dimensions
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    both = np.kron(np.eye(2), axes).astype(np.float32)
    return replace(
        embedding,
        chooser=(embedding.chooser @ axes).astype(np.float32),
        chosen=(embedding.chosen @ axes).astype(np.float32),
        content_weights=embedding.content_weights @ both,
        content_intercept=embedding.content_intercept @ both,
    )


def of_each_other(index: ItemIndex) -> ItemIndex:
    """Give everybody somebody else's row."""
    return replace(index, user_ids=np.random.default_rng(3).permutation(index.user_ids))


@SHARES
@FITS
def test_refreshed_factors_are_an_embeddings_own(config: EmbeddingConfig, fitted: float) -> None:
    embedding, fresh, count = fitted_and_refreshed(config, fitted)
    assert foreign_factors(embedding, indexed(fresh, count)) is None


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_fp16", "ivf_sq8", "ivf_pq"])
def test_however_an_index_keeps_its_vectors_they_are_known_again(kind: str) -> None:
    embedding, fresh, count = fitted_and_refreshed(HARDLY_BEGUN, 0.5)
    assert foreign_factors(embedding, indexed(embedding, kind=kind)) is None
    assert foreign_factors(embedding, indexed(fresh, count, kind=kind)) is None
    assert foreign_factors(embedding, indexed(fresh, kind=kind)) is not None


@FITS
def test_an_index_that_says_that_nothing_was_refreshed_holds_the_factors_of_the_fit(config: EmbeddingConfig) -> None:
    embedding, fresh, count = fitted_and_refreshed(config, 0.5)
    assert foreign_factors(embedding, indexed(embedding)) is None
    assert "and 0% were refreshed" in str(foreign_factors(embedding, indexed(fresh)))
    assert "and 5% were refreshed" in str(foreign_factors(embedding, indexed(fresh, count // 16)))


@SHARES
@FITS
def test_rows_of_other_people_are_foreign_however_many_were_refreshed(config: EmbeddingConfig, fitted: float) -> None:
    embedding, fresh, count = fitted_and_refreshed(config, fitted)
    assert foreign_factors(embedding, of_each_other(indexed(fresh, count))) is not None
    assert "ranks at" in str(foreign_factors(embedding, of_each_other(indexed(fresh, 2 * len(embedding)))))


@FITS
def test_factors_in_another_frame_are_foreign(config: EmbeddingConfig) -> None:
    embedding, fresh, count = fitted_and_refreshed(config, 0.5)
    for seed in range(5):
        assert foreign_factors(embedding, indexed(turned(fresh, seed), count)) is not None


def test_another_fit_of_the_same_shape_on_the_same_decisions_is_foreign() -> None:
    embedding, _, _ = fitted_and_refreshed(CONVERGED, 0.5)
    _, fresh, count = fitted_and_refreshed(CONVERGED.model_copy(update={"seed": 8}), 0.5)
    assert foreign_factors(embedding, indexed(fresh, count)) is not None


def test_an_index_of_people_whom_the_embedding_does_not_know_says_nothing_of_its_factors() -> None:
    embedding, _, _ = fitted_and_refreshed(CONVERGED, 0.5)
    index = indexed(embedding)
    assert foreign_factors(embedding, replace(index, user_ids=index.user_ids + 1_000)) is None
