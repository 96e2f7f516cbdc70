"""Neighbour scores find the withheld like, count a new one at once, and survive being written and mapped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.features.events import LIKE, Events
from pipelines.retrieval.config import NeighboursConfig
from pipelines.retrieval.neighbours import fit_neighbours
from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact, InvalidVectors
from registry.models.arrays import npy_writer
from registry.models.artifacts import write_artifact
from registry.models.neighbours import (
    EASE,
    ITEM_KNN,
    NEIGHBOUR_SOURCES,
    POPULAR,
    SPECTRAL,
    USER_KNN,
    Neighbours,
)
from registry.models.sparse_rows import SparseRows

N = 24
IDS = np.arange(1, 2 * N + 1, dtype=np.int64)
CONFIG = NeighboursConfig(threads=1, spectral_dimensions=4, ease_ridge=1.0)


def checkerboard() -> Events:
    """Person i of the first N likes everybody of the same colour in the second N, but for their own counterpart."""
    actor, target = np.divmod(np.arange(N * N), N)
    kept = ((actor + target) % 2 == 0) & (actor != target)
    actor, target = actor[kept].astype(np.int32), (target[kept] + N).astype(np.int32)
    n = actor.size
    return Events(IDS, actor, target, np.full(n, LIKE, np.int8), np.arange(n, dtype=np.int64) * 1_000_000)


@pytest.fixture(scope="module")
def board() -> Neighbours:
    return fit_neighbours(checkerboard(), CONFIG)


def likes_of(person: int) -> np.ndarray:
    events = checkerboard()
    return IDS[events.target[events.actor == person]]


@pytest.mark.parametrize("source", [ITEM_KNN, USER_KNN, SPECTRAL, EASE])
def test_every_neighbour_score_finds_the_one_withheld_like(board: Neighbours, source: str) -> None:
    for person in range(6):
        liked = likes_of(person)
        rows, scores = board.taste_of(int(IDS[person]), liked).best(source, 2 * N)
        unseen = [int(user_id) for user_id in IDS[rows] if user_id not in liked]
        assert unseen[0] == IDS[person + N]
        assert np.all(np.diff(scores) <= 1e-6)


def test_scores_of_named_people_are_those_of_the_search(board: Neighbours) -> None:
    taste = board.taste_of(1, likes_of(0))
    for source in NEIGHBOUR_SOURCES:
        rows, scores = taste.best(source, 2 * N)
        np.testing.assert_allclose(taste.scores(rows)[source], scores, rtol=1e-5, atol=1e-6)


def test_a_stranger_is_known_by_the_likes_they_have_just_made(board: Neighbours) -> None:
    rows, _ = board.taste_of(10_000, IDS[[N, N + 2, N + 4]]).best(USER_KNN, 2 * N)
    assert all((row - N) % 2 == 0 for row in rows.tolist())


def test_the_smooth_part_is_the_product_of_the_vectors_whatever_their_size(board: Neighbours) -> None:
    vectors = np.zeros((len(board), 3), dtype=np.float16)
    rows = np.arange(N, N + 4)
    vectors[rows] = [[1.5, -2.0, 0.25], [6e-8, -6e-5, 60_000.0], [-0.0, 1e-4, -65_504.0], [0.0, 0.0, 0.0]]
    taste = replace(board, spectral=vectors).taste_of(int(IDS[0]), likes_of(0))
    vars(taste)["_smooth_query"] = np.array([0.5, 4.0, -1.0], dtype=np.float32)
    expected = (vectors[rows].astype(np.float64) @ [0.5, 4.0, -1.0]) * np.sqrt(taste.neighbours.degree[rows])
    assert expected[:3].all()
    np.testing.assert_allclose(taste._smooth(rows), expected, rtol=1e-6)


def test_without_a_like_only_popularity_speaks(board: Neighbours) -> None:
    taste = board.taste_of(1, [])
    assert [len(taste.best(source, 5)[0]) for source in NEIGHBOUR_SOURCES] == [0, 0, 0, 0, 5]
    scores = taste.scores(np.array([N, -1]))
    assert np.isnan(scores[ITEM_KNN]).all()
    assert np.isfinite(scores[POPULAR][0])
    assert np.isnan(scores[POPULAR][1])


def test_who_would_like_back_is_who_likes_people_like_the_requester(board: Neighbours) -> None:
    back = board.taste_of(int(IDS[N]), []).liked_back(np.array([0, 1, -1]))
    assert back[0] > back[1] == 0.0
    assert np.isnan(back[2])


def test_a_recent_like_makes_more_popular_than_an_old_one() -> None:
    day = 86_400_000_000
    events = Events(
        IDS, np.array([0, 1, 2], np.int32), np.array([N, N, N + 1], np.int32), np.full(3, LIKE, np.int8),
        np.array([0, 1, 100 * day], dtype=np.int64),
    )  # fmt: skip
    popularity = fit_neighbours(events, NeighboursConfig(popularity_half_life_days=10)).popularity
    assert popularity[N + 1] == 1.0 > popularity[N] > 0


def test_written_and_mapped_it_answers_the_same(board: Neighbours, tmp_path: Path) -> None:
    manifest = write_artifact(tmp_path / "index", ArtifactKind.INDEX, board.writers(), parameters={}, lineage={})
    mapped = Neighbours.load(tmp_path / "index", manifest)
    assert mapped is not None
    for source in NEIGHBOUR_SOURCES:
        ours, theirs = (one.taste_of(1, likes_of(0)).best(source, 9) for one in (board, mapped))
        np.testing.assert_array_equal(ours[0], theirs[0])
    mapped.warm()


def test_a_column_beyond_the_people_is_refused(board: Neighbours, tmp_path: Path) -> None:
    knn = board.item_knn
    column = knn.column.copy()
    column[3] = 10_000
    broken = replace(board, item_knn=SparseRows(knn.start, column, knn.weight))
    manifest = write_artifact(tmp_path / "index", ArtifactKind.INDEX, broken.writers(), parameters={}, lineage={})
    with pytest.raises(CorruptArtifact, match="`item_knn` names people beyond"):
        Neighbours.load(tmp_path / "index", manifest)
    with pytest.raises(InvalidVectors, match="does not hold together"):
        SparseRows(knn.start[:-1], knn.column, knn.weight)


def test_an_artefact_without_neighbours_has_none(tmp_path: Path) -> None:
    manifest = write_artifact(
        tmp_path / "index", ArtifactKind.INDEX, {"other.npy": npy_writer(IDS)}, parameters={}, lineage={}
    )
    assert Neighbours.load(tmp_path / "index", manifest) is None


def test_equal_likes_give_equal_weights_on_any_number_of_threads() -> None:
    one, two = (fit_neighbours(checkerboard(), CONFIG.model_copy(update={"threads": n})) for n in (1, 2))
    np.testing.assert_array_equal(one.item_knn.column, two.item_knn.column)
    np.testing.assert_array_equal(one.spectral, two.spectral)
