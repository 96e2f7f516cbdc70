"""What is known of a pair just before its decision, and nothing later."""

import numpy as np
import pytest

from pipelines.features.events import LIKE, PASS, Events
from pipelines.ranking.config import DatasetConfig
from pipelines.ranking.context import Factors, LikeHistory
from pipelines.ranking.dataset import context_of, labelled_pairs, labels, pairs_frame, reversed_frame
from pipelines.ranking.errors import NoLabels, RankingError
from registry.embedding import similarity_to_liked

IDS = np.array([7, 11, 13, 17], dtype=np.int64)


def events(*rows: tuple[int, int, int, int]) -> Events:
    actor, target, kind, at = (np.array(column) for column in zip(*rows, strict=True))
    return Events(IDS, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), at.astype(np.int64))


def factors() -> Factors:
    rng = np.random.default_rng(0)
    return Factors(*(rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2)))


def test_only_first_decisions_inside_the_window_are_labelled() -> None:
    all_ = events((0, 1, PASS, 1), (0, 1, LIKE, 5), (1, 0, LIKE, 6), (2, 0, PASS, 7), (3, 0, LIKE, 9))
    pairs = labelled_pairs(all_, 4, 7)
    assert list(zip(pairs.actor.tolist(), pairs.target.tolist(), labels(pairs).tolist(), strict=True)) == [
        (1, 0, 1.0),
        (2, 0, 0.0),
    ]


def test_a_sample_is_seeded_and_keeps_the_order_of_time() -> None:
    rng = np.random.default_rng(1)
    ids = np.arange(1, 61, dtype=np.int64)
    pairs = np.unique(rng.integers(0, 60, (900, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    many = Events(
        ids,
        pairs[:, 0].astype(np.int32),
        pairs[:, 1].astype(np.int32),
        rng.choice([LIKE, PASS], len(pairs)).astype(np.int8),
        np.arange(len(pairs), dtype=np.int64),
    )
    config = DatasetConfig(max_rows=100)
    sample = labelled_pairs(many, -1, 10_000, config)
    assert len(sample) == 100
    assert np.all(np.diff(sample.at_us) > 0)
    np.testing.assert_array_equal(sample.at_us, labelled_pairs(many, -1, 10_000, config).at_us)


def test_likes_count_strictly_before_the_instant() -> None:
    likes = LikeHistory(events((0, 1, LIKE, 1), (0, 2, LIKE, 3), (1, 0, LIKE, 3), (0, 3, LIKE, 5)))
    zero = np.zeros(4, dtype=np.int64)
    at = np.array([1, 3, 4, 9], dtype=np.int64)
    assert likes.last_before(zero, at, 2).tolist() == [[-1, -1], [1, -1], [2, 1], [3, 2]]
    one = np.ones(4, dtype=np.int64)
    assert likes.liked_before(one, zero, at).tolist() == [False, False, True, True]


def test_similarity_is_the_one_that_serving_computes() -> None:
    all_ = events((0, 1, LIKE, 1), (0, 2, LIKE, 2), (0, 3, LIKE, 3))
    known = factors()
    pairs = labelled_pairs(all_, 0, 3)
    context = context_of(pairs, all_, known)
    assert np.isnan(context.similarity_to_liked[0])
    expected = similarity_to_liked(known.chosen[[1, 2]], known.chosen[[3]])
    np.testing.assert_allclose(context.similarity_to_liked[2], expected[0], rtol=1e-6)
    np.testing.assert_allclose(context.score_forward[2], known.chooser[0] @ known.chosen[3], rtol=1e-6)


def test_a_pending_like_is_hidden_unless_the_product_allows_it() -> None:
    all_ = events((1, 0, LIKE, 1), (0, 1, LIKE, 5), (0, 2, LIKE, 6))
    pairs = labelled_pairs(all_, 4, 9)
    assert context_of(pairs, all_, factors()).liked_requester.tolist() == [0.0, 0.0]
    assert context_of(pairs, all_, factors(), pending_likes=True).liked_requester.tolist() == [1.0, 0.0]


def test_frames_carry_ids_instants_and_both_directions() -> None:
    all_ = events((0, 1, LIKE, 1_000_000), (1, 0, PASS, 2_000_000))
    pairs = labelled_pairs(all_, 0, 2_000_000)
    context = context_of(pairs, all_, factors())
    frame, other = pairs_frame(pairs, context), reversed_frame(pairs, context)
    assert frame["requester_id"].tolist() == [7, 11] == other["candidate_id"].tolist()
    assert str(frame["event_timestamp"].dtype) == "datetime64[us, UTC]"
    assert frame["label"].tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(frame["score_forward"], other["score_backward"])
    assert "label" not in other


def test_a_window_without_decisions_is_refused() -> None:
    with pytest.raises(NoLabels, match="ranker's window") as caught:
        labelled_pairs(events((0, 1, LIKE, 1)), 5, 9)
    assert isinstance(caught.value, RankingError)
