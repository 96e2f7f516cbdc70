"""Inner products with the same bits everywhere, and cosines to what somebody likes."""

import numpy as np

from registry.models.embedding import Embedding, pair_scores
from registry.models.pairs import nearest_to_liked, row_dot


def factors(n: int, d: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_a_pair_scores_the_same_bits_alone_and_in_a_batch() -> None:
    left, right = factors(3000), factors(3000, seed=1)
    batch = row_dot(left, right)
    np.testing.assert_allclose(batch, np.einsum("nd,nd->n", left, right), rtol=1e-4, atol=1e-4)
    assert all(row_dot(left[i : i + 1], right[i : i + 1])[0] == batch[i] for i in range(0, 3000, 97))
    assert np.array_equal(row_dot(left[:1], right), row_dot(np.repeat(left[:1], 3000, axis=0), right))


def test_one_row_against_nobody_scores_nobody() -> None:
    one, nobody = np.ones((1, 4), dtype=np.float32), np.empty((0, 4), dtype=np.float32)
    assert row_dot(one, nobody).shape == (0,)
    assert row_dot(nobody, one).shape == (0,)


def test_serving_scores_pairs_to_the_bit_as_training_does_and_strangers_by_their_profiles() -> None:
    d = 6
    weights, intercept = factors(3, 2 * d, seed=5), factors(1, 2 * d, seed=6)[0]
    embedding = Embedding(np.array([2, 5, 9]), factors(3, d), factors(3, d, seed=1), weights, intercept)
    p, q = factors(2, d, seed=2)
    ids, profiles = np.array([9, 4, 2, 7]), factors(2, 3, seed=3)
    forward, backward, chosen = embedding.scores_with(p, q, embedding.positions(ids), profiles)
    aligned = np.zeros((4, 3), dtype=np.float32)
    aligned[[1, 3]] = profiles
    theirs = embedding.vectors(ids, aligned)
    np.testing.assert_array_equal(np.stack([forward, backward]), np.stack(pair_scores(p[None], q[None], *theirs)))
    np.testing.assert_array_equal(chosen, theirs[1])


def test_the_nearest_of_those_liked_is_the_highest_cosine() -> None:
    liked, others = factors(4, 10), factors(30, 10, seed=1)
    cosines = others @ liked.T / np.linalg.norm(others, axis=1)[:, None] / np.linalg.norm(liked, axis=1)
    np.testing.assert_allclose(nearest_to_liked(liked, others), cosines.max(axis=1), rtol=1e-5)
