import numpy as np
import pytest

from registry.models.embedding import Embedding
from registry.scoring.recent_likes import RecentLikes

RNG = np.random.default_rng(5)
D = 6
FACTORS = RNG.normal(size=(9, D)).astype(np.float32)
EMBEDDING = Embedding(np.arange(1, 10), FACTORS, FACTORS, np.zeros((2, 2 * D), np.float32), np.zeros(2 * D, np.float32))
ASKING = FACTORS[0]


def cosine(user_id: int) -> float:
    theirs = FACTORS[user_id - 1]
    return float(theirs @ ASKING / np.linalg.norm(theirs) / np.linalg.norm(ASKING))


def similarity(likes: RecentLikes, user_ids: list[int], last: int) -> list[float]:
    return likes.similarity(EMBEDDING, np.array(user_ids), ASKING, last, to=1).tolist()


@pytest.mark.parametrize("last", [1, 2, 3, 20])
def test_the_nearest_of_the_latest_likes_counts(last: int) -> None:
    expected = max(cosine(liked) for liked in (9, 4, 7)[:last])
    assert similarity(RecentLikes.build([(2, [9, 4, 7])]), [2], last) == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("last", [1, 2, 3, 20])
def test_a_like_of_the_one_who_asks_leaves_the_comparison_as_it_was(last: int) -> None:
    before, after = RecentLikes.build([(2, [9, 4, 7])]), RecentLikes.build([(2, [1, 9, 4, 7])])
    assert similarity(before, [2], last) == similarity(after, [2], last)


def test_without_a_like_of_somebody_known_there_is_nothing_to_compare() -> None:
    likes = RecentLikes.build([(2, [1]), (3, []), (4, [77])])
    assert np.isnan(similarity(likes, [2, 3, 4, 5], 3)).all()
