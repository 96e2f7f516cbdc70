"""Factors: fitted, predicted from a profile, folded in from fresh decisions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from registry.errors import CorruptArtifact, InvalidVectors
from registry.models.embedding import (
    Embedding,
    EmbeddingParameters,
    item_vectors,
    pair_scores,
    query_vectors,
    similarity_to_liked,
)
from tests.releases import make_embedding


def test_fold_in_of_a_training_row_is_what_the_library_recalculates() -> None:
    import scipy.sparse
    from implicit.als import AlternatingLeastSquares

    alpha, pass_confidence, regularization = 40.0, 5.0, 2.0
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random(80, 80, 0.2, random_state=1, format="csr", dtype=np.float32)
    matrix.data[:] = np.where(rng.random(matrix.nnz) < 0.6, alpha, -pass_confidence)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=8, regularization=regularization, alpha=1.0, iterations=5, random_state=3, num_threads=1
        )
        model.fit(matrix, show_progress=False)
    ids = np.arange(101, 181)
    embedding = Embedding(
        ids,
        model.user_factors,
        model.item_factors,
        np.zeros((2, 16), np.float32),
        np.zeros(16, np.float32),
        EmbeddingParameters(alpha=alpha, pass_confidence=pass_confidence, regularization=regularization),
    )
    transposed = matrix.T.tocsr()
    for person in (0, 17, 79):
        row, column = matrix[person], transposed[person]
        chooser = embedding.fold_in_chooser(ids[row.indices[row.data > 0]], ids[row.indices[row.data < 0]])
        np.testing.assert_allclose(chooser, model.recalculate_user(person, row), atol=1e-4)
        chosen = embedding.fold_in_chosen(ids[column.indices[column.data > 0]], ids[column.indices[column.data < 0]])
        np.testing.assert_allclose(chosen, model.recalculate_item(person, column), atol=1e-4)


def test_a_new_person_who_likes_the_odd_ones_gets_an_odd_factor() -> None:
    embedding = make_embedding()
    chooser = embedding.fold_in_chooser([1, 3, 5], [2, 4])
    scores = embedding.chosen @ chooser
    assert scores[embedding.user_ids % 2 == 1].min() > scores[embedding.user_ids % 2 == 0].max()


def test_without_decisions_the_fold_in_stays_near_its_prior() -> None:
    embedding = make_embedding()
    assert not embedding.fold_in_chooser([], []).any()
    prior = np.ones(4, np.float32)
    assert embedding.fold_in_chooser([], [], prior=prior) @ prior > 0


def test_people_it_does_not_know_are_left_out_of_a_fold_in() -> None:
    embedding = make_embedding()
    assert np.array_equal(embedding.fold_in_chooser([1, 9999]), embedding.fold_in_chooser([1]))


def test_unknown_people_get_factors_from_their_profile() -> None:
    embedding = make_embedding()
    chooser, chosen = embedding.vectors([7, 5000], np.array([[0, 0, 0], [1, 0, 0]], np.float32))
    assert np.array_equal(chooser[0], embedding.chooser[6])
    assert np.array_equal(chosen[0], embedding.chosen[6])
    assert chooser[1] @ embedding.chosen[0] > 0 > chooser[1] @ embedding.chosen[1]
    assert not embedding.vectors([5000])[0].any()


def test_positions_of_known_and_unknown_people() -> None:
    embedding = make_embedding()
    assert embedding.positions([1, 60, 61, 0, -3]).tolist() == [0, 59, -1, -1, -1]
    assert embedding.known([1, 61]).tolist() == [True, False]
    empty = Embedding(
        np.empty(0, np.int64), *np.empty((2, 0, 4), np.float32), np.zeros((1, 8), np.float32), np.zeros(8, np.float32)
    )
    assert empty.positions([1]).tolist() == [-1]
    assert not empty.fold_in_chooser([1]).any()


def test_positions_are_the_same_for_dense_and_sparse_ids() -> None:
    for ids in ([1, 3, 4, 9], [5, 70_000, 2**62]):
        embedding = Embedding(
            np.array(ids), *np.ones((2, len(ids), 4), np.float32), np.zeros((1, 8), np.float32), np.zeros(8, np.float32)
        )
        asked = [*ids, *(one + 1 for one in ids), 0, -1, -(2**63), 2**63 - 1]
        expected = [ids.index(one) if one in ids else -1 for one in asked]
        assert embedding.positions(asked).tolist() == expected
        assert embedding.positions([asked, asked]).tolist() == [expected, expected]


def test_the_reciprocal_inner_product_is_the_weighted_sum_of_both_scores() -> None:
    embedding = make_embedding()
    u, v = slice(0, 1), slice(1, 20)
    p_u, q_u, p_v, q_v = embedding.chooser[u], embedding.chosen[u], embedding.chooser[v], embedding.chosen[v]
    forward, backward = pair_scores(p_u, q_u, p_v, q_v)
    inner = item_vectors(p_v, q_v) @ query_vectors(p_u, q_u, 0.7)[0]
    np.testing.assert_allclose(inner, 0.7 * forward + 0.3 * backward, rtol=1e-4, atol=1e-6)


def test_similarity_to_the_liked_is_the_best_cosine() -> None:
    liked = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
    others = np.array([[5.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(similarity_to_liked(liked, others), [1.0, 0.0, 0.0], atol=1e-6)
    assert np.isnan(similarity_to_liked(liked[:0], others)).all()


def test_an_embedding_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    embedding = make_embedding()
    manifest = embedding.save(tmp_path / "e", {"dataset_digest": "d"}, {"loss": 1.0})
    loaded = Embedding.load(tmp_path / "e", manifest.digest)
    assert np.array_equal(loaded.chooser, embedding.chooser)
    assert loaded.parameters == embedding.parameters
    assert isinstance(loaded.chooser.base, np.memmap), "workers share the pages"
    assert loaded.user_ids.base is None, "every look-up reads ids: they are in memory"
    assert make_embedding().save(tmp_path / "again", {"dataset_digest": "d"}).digest == manifest.digest


def test_factors_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    embedding = make_embedding()
    embedding.chooser[3, 1] = np.nan
    with pytest.raises(InvalidVectors, match="`chooser` holds NaN"):
        embedding.save(tmp_path / "e", {})
    assert not (tmp_path / "e").exists()


def test_factors_that_do_not_align_are_refused() -> None:
    good = make_embedding()
    with pytest.raises(InvalidVectors, match="do not align"):
        Embedding(good.user_ids[:-1], good.chooser, good.chosen, good.content_weights, good.content_intercept)
    with pytest.raises(InvalidVectors, match="strictly ascending"):
        Embedding(good.user_ids[::-1], good.chooser, good.chosen, good.content_weights, good.content_intercept)


def test_content_inputs_of_another_width_or_not_finite_are_refused() -> None:
    with pytest.raises(InvalidVectors, match="2 columns"):
        make_embedding().content_factors(np.zeros((1, 2), np.float32))
    with pytest.raises(InvalidVectors, match="not finite"):
        make_embedding().content_factors(np.full((1, 3), np.nan, np.float32))


def test_a_weight_outside_its_bounds_is_refused() -> None:
    embedding = make_embedding()
    with pytest.raises(InvalidVectors, match=r"0\.\.1"):
        query_vectors(embedding.chooser, embedding.chosen, 1.2)


def test_a_damaged_embedding_is_refused(tmp_path: Path) -> None:
    make_embedding().save(tmp_path / "e", {})
    damaged = shutil.copytree(tmp_path / "e", tmp_path / "damaged")
    content = bytearray((damaged / "chosen.npy").read_bytes())
    content[200] ^= 1
    (damaged / "chosen.npy").write_bytes(content)
    with pytest.raises(CorruptArtifact, match=r"chosen\.npy"):
        Embedding.load(damaged)
