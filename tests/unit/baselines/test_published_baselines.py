"""The published baselines on worlds small enough to see the right answer."""

import numpy as np
import pytest
from scipy import sparse

from pipelines.evaluation.baselines.lfrr import aggregate, fit_side_models
from pipelines.evaluation.baselines.popularity import decayed_popularity
from pipelines.evaluation.baselines.recon import attribute_values, preferences, quantile_codes, reciprocal_compatibility


def likes_of(n_people: int, *pairs: tuple[int, int]) -> sparse.csr_array:
    rows, columns = zip(*pairs, strict=True)
    return sparse.csr_array((np.ones(len(pairs)), (rows, columns)), shape=(n_people, n_people))


def test_a_like_counts_half_after_its_half_life() -> None:
    target, age = np.array([0, 0, 1, 2]), np.array([0.0, 7.0, 14.0, np.inf])
    assert decayed_popularity(target, age, 4, half_life=7.0).tolist() == [1.5, 0.25, 0.0, 0.0]
    ever = decayed_popularity(target[:3], age[:3], 4, half_life=np.inf)
    assert ever.tolist() == [2.0, 1.0, 0.0, 0.0]


# Ann (0) liked a tall and a short smoker; Bob (1) is a tall smoker who liked only women of Ann's town.
TOWN = np.array([0, 1, 1, 1, 0])
SMOKES = np.array([0, 1, 1, -1, 0])


def test_recon_is_the_harmonic_mean_of_how_well_each_suits_what_the_other_chose() -> None:
    likes = likes_of(5, (0, 2), (0, 3), (1, 0), (1, 4))
    values, n_attributes = attribute_values({"town": TOWN, "smokes": SMOKES})
    preferred = preferences(likes, values)
    # Ann's likes: both of town 1, one smokes and one does not say. Bob: town 1, smokes.
    ann_to_bob = (1.0 + 0.5) / 2
    # Bob's likes: both of town 0 and not smoking, as Ann.
    bob_to_ann = 1.0
    expected = 2 * ann_to_bob * bob_to_ann / (ann_to_bob + bob_to_ann)
    assert reciprocal_compatibility(preferred, values, n_attributes, 0)[1] == pytest.approx(expected)
    assert reciprocal_compatibility(preferred, values, n_attributes, 1)[0] == pytest.approx(expected)


def test_recon_believes_one_side_where_the_other_has_liked_nobody() -> None:
    likes = likes_of(5, (0, 2), (0, 3))
    values, n_attributes = attribute_values({"town": TOWN, "smokes": SMOKES})
    preferred = preferences(likes, values)
    assert reciprocal_compatibility(preferred, values, n_attributes, 0)[1] == pytest.approx(0.75)
    np.testing.assert_allclose(reciprocal_compatibility(preferred, values, n_attributes, 1)[[0, 4]], [0.75, 0.0])


def test_recon_is_zero_where_one_side_would_not_have_it() -> None:
    likes = likes_of(5, (0, 2), (1, 2))
    values, n_attributes = attribute_values({"town": TOWN, "smokes": SMOKES})
    assert reciprocal_compatibility(preferences(likes, values), values, n_attributes, 0)[1] == 0.0


def test_several_values_of_one_attribute_share_its_weight() -> None:
    interests = sparse.csr_array(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]]))
    values, n_attributes = attribute_values({}, [interests])
    assert n_attributes == 1
    assert values.toarray().tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_numbers_become_bins_of_equally_many_people() -> None:
    assert quantile_codes(np.array([1.0, 9.0, np.nan, 2.0, 8.0]), 2).tolist() == [0, 1, -1, 0, 1]
    assert quantile_codes(np.full(3, np.nan), 4).tolist() == [-1, -1, -1]


def test_aggregations_by_hand() -> None:
    forward, backward = np.array([0.8]), np.array([0.2])
    for how, expected in (("arithmetic", 0.5), ("geometric", 0.4), ("harmonic", 0.32), ("uninorm", 0.5)):
        assert aggregate(forward, backward, how)[0] == pytest.approx(expected)
    assert aggregate(np.array([0.8]), np.array([0.8]), "uninorm")[0] > 0.8


def test_lfrr_finds_the_pairs_that_like_each_other_in_two_worlds_that_never_mix() -> None:
    # Women 0 to 9, men 10 to 19; the even ones like each other and the odd ones do; one pair of each is withheld.
    side = np.arange(20) >= 10
    pairs = [(u, v) for u in range(20) for v in range(20) if side[u] != side[v] and u % 2 == v % 2]
    withheld = {(0, 18), (18, 0), (3, 11), (11, 3)}
    likes = likes_of(20, *(pair for pair in pairs if pair not in withheld))
    models = fit_side_models(likes, side, dimensions=2, regularization=0.1)
    for u, v in ((0, 18), (3, 11)):
        men = np.arange(10, 20)
        score = models.scores(u)[men]
        assert score[v - 10] > score[men % 2 != u % 2].max() + 0.3
    again = fit_side_models(likes, side, dimensions=2, regularization=0.1)
    assert np.array_equal(again.chooser, models.chooser)
    assert models.scores(0)[18] == pytest.approx(models.scores(18)[0])


def test_lfrr_scores_people_of_a_side_that_never_liked_lowest() -> None:
    likes = likes_of(4, (0, 2), (1, 2), (1, 3))
    models = fit_side_models(likes, np.array([False, False, True, True]), dimensions=2, regularization=0.1)
    assert models.liking(2)[0] == models.liked(0)[2] == pytest.approx(1e-3)
