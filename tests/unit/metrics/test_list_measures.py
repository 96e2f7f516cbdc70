"""List measures equal scikit-learn and trec_eval, and what those do not have is worked out by hand."""

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, R, Success, nDCG
from ir_measures import MRR as RR
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from pipelines import metrics

N_PEOPLE, N_CANDIDATES, K = 30, 25, 10


@pytest.fixture(scope="module")
def judged() -> tuple[np.ndarray, np.ndarray]:
    """Labels bool and scores float, both [people, candidates]; everybody has at least one relevant candidate."""
    rng = np.random.default_rng(0)
    labels = rng.random((N_PEOPLE, N_CANDIDATES)) < 0.2
    labels[~labels.any(axis=1), 3] = True
    labels[0, :15] = True  # more relevant people than places
    return labels, rng.permuted(np.tile(np.arange(N_CANDIDATES, dtype=float), (N_PEOPLE, 1)), axis=1)


def hits_of(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return np.take_along_axis(labels, np.argsort(-scores, axis=1), axis=1)


def by_ir_measures(measure: object, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    qrels = [
        ir_measures.Qrel(f"{u:03}", str(v), int(labels[u, v])) for u in range(N_PEOPLE) for v in range(N_CANDIDATES)
    ]
    run = [ir_measures.ScoredDoc(f"{u:03}", str(v), scores[u, v]) for u in range(N_PEOPLE) for v in range(N_CANDIDATES)]
    found = sorted(ir_measures.iter_calc([measure], qrels, run), key=lambda metric: metric.query_id)
    return np.array([metric.value for metric in found])


def test_ndcg_equals_scikit_learn_and_trec_eval(judged: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = judged
    ours = metrics.ndcg_at(hits_of(labels, scores), labels.sum(axis=1), K)
    assert ours.mean() == pytest.approx(ndcg_score(labels, scores, k=K))
    np.testing.assert_allclose(ours, by_ir_measures(nDCG @ K, labels, scores))


def test_recall_reciprocal_rank_and_hit_rate_equal_trec_eval(judged: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = judged
    hits, relevant = hits_of(labels, scores), labels.sum(axis=1)
    np.testing.assert_allclose(metrics.recall_at(hits, relevant, K), by_ir_measures(R @ K, labels, scores))
    np.testing.assert_allclose(metrics.reciprocal_rank_at(hits, relevant, 25), by_ir_measures(RR, labels, scores))
    np.testing.assert_allclose(metrics.hit_rate_at(hits, relevant, 3), by_ir_measures(Success @ 3, labels, scores))


def test_average_precision_equals_scikit_learn_at_full_depth_and_trec_eval_but_for_its_divisor(
    judged: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, scores = judged
    hits, relevant = hits_of(labels, scores), labels.sum(axis=1)
    whole = [average_precision_score(label, score) for label, score in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(metrics.average_precision_at(hits, relevant, N_CANDIDATES), whole)
    trec = by_ir_measures(AP @ K, labels, scores) * relevant / np.minimum(relevant, K)
    np.testing.assert_allclose(metrics.average_precision_at(hits, relevant, K), trec)


def test_auc_and_log_loss_equal_scikit_learn_also_with_ties() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.random(200) < 0.3, rng.integers(1, 20, 200) / 20
    assert metrics.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, scores))


def test_who_has_nobody_relevant_has_no_value_in_any_list_measure() -> None:
    nobody = np.array([0])
    for measure in (
        metrics.recall_at,
        metrics.ndcg_at,
        metrics.average_precision_at,
        metrics.reciprocal_rank_at,
        metrics.hit_rate_at,
    ):
        assert np.isnan(measure(np.zeros((1, 3), bool), nobody, 3)).all()


def test_reciprocal_rank_ignores_what_lies_beyond_the_first_k() -> None:
    hits = np.array([[False, True, True], [False, False, True]])
    np.testing.assert_allclose(metrics.reciprocal_rank_at(hits, np.array([2, 1]), 2), [0.5, 0.0])


def test_novelty_is_the_mean_surprise_of_the_shown() -> None:
    likes_received = np.array([3, 1, 1, 0])  # with one added each: 4, 2, 2, 1 of 9
    shown = np.array([[0, 1], [3, -1], [-1, -1]])
    found = metrics.novelty(shown, likes_received)
    np.testing.assert_allclose(found, [np.log2(9 / 4) / 2 + np.log2(9 / 2) / 2, np.log2(9), np.nan])


def test_exposure_counts_only_filled_places() -> None:
    assert metrics.exposure_of(np.array([[0, 2], [2, -1]]), 4).tolist() == [1, 0, 2, 0]
