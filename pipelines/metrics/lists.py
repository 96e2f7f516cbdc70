"""Measures of ranked lists, vectorised over people.

A ranked list is one row of a matrix `hits` bool[n, k], best first, padded with False. Recall divides by the number
of relevant people (never by min(k, relevant)); NDCG is binary. A person without relevant people yields NaN, which
the means leave out: they cannot be answered rightly or wrongly.
"""

import numpy as np

from pipelines.metrics.arrays import Floats, Hits, Ints, Numbers


def recall_at(hits: Hits, n_relevant: Ints, k: int) -> Floats:
    """Return the share of the relevant people within the first k, float64[n]."""
    return _where_relevant(hits[:, :k].sum(axis=1), n_relevant)


def precision_at(hits: Hits, k: int, n_candidates: Ints | None = None) -> Floats:
    """Return the share of the first k places that hit, float64[n]; an unfilled place counts as a miss.

    With `n_candidates` int64[n] it is of min(k, candidates): an evening with six people cannot fill ten places.
    """
    places = k if n_candidates is None else np.minimum(k, n_candidates)
    return np.asarray(hits[:, :k].sum(axis=1) / places, dtype=np.float64)


def ndcg_at(hits: Hits, n_relevant: Ints, k: int) -> Floats:
    """Return the binary normalised discounted cumulative gain of the first k, float64[n]."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    shown = hits[:, :k]
    gained = shown @ discount[: shown.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(n_relevant, k)]
    return _where_relevant(gained, ideal)


def average_precision_at(hits: Hits, n_relevant: Ints, k: int) -> Floats:
    """Return the average precision of the first k over min(k, relevant), float64[n]; its mean is MAP@k.

    This is MAP as in Kaggle and RecTools. trec_eval divides by all relevant people instead, which caps the value of
    those with more than k of them below one; the two agree where k reaches the end of the list.
    """
    shown = hits[:, :k]
    precision = np.cumsum(shown, axis=1) / np.arange(1, shown.shape[1] + 1)
    return _where_relevant((precision * shown).sum(axis=1), np.minimum(n_relevant, k))


def reciprocal_rank_at(hits: Hits, n_relevant: Ints, k: int) -> Floats:
    """Return one over the place of the first hit within the first k, else 0, float64[n]; its mean is MRR@k."""
    shown = hits[:, :k]
    found = shown.any(axis=1)
    first = np.argmax(shown, axis=1) + 1 if shown.shape[1] else np.ones(len(hits))
    return _where_relevant(found / first, (n_relevant > 0).astype(np.float64))


def hit_rate_at(hits: Hits, n_relevant: Ints, k: int) -> Floats:
    """Return 1 where the first k hold a hit, else 0, float64[n]."""
    return _where_relevant(np.asarray(hits[:, :k].any(axis=1)), (n_relevant > 0).astype(np.float64))


def _where_relevant(gained: Numbers, most: Numbers) -> Floats:
    value = np.full(gained.shape, np.nan)
    np.divide(gained, most, out=value, where=most > 0)
    return value
