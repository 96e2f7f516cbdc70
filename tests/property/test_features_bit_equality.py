"""A row is the same to the last bit whatever stands beside it: this is what makes training equal serving."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.transforms import (
    PairContext,
    content_inputs,
    content_score,
    mutually_eligible,
    ranking_features,
    ranking_features_both,
)
from tests.people_worlds import crowd

seeds = st.integers(0, 2**32 - 1)
instants = st.floats(1.5e9, 2.0e9)


def context(n: int, seed: int) -> PairContext:
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=n).astype(np.float32) for _ in range(6)]
    for column in values:
        column[rng.random(n) < 0.1] = np.nan
    return PairContext(*values)


def same_bits(one: np.ndarray, other: np.ndarray) -> None:
    # NaN payloads may differ and mean nothing: what is not NaN must agree to the bit, signs of zero included.
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    np.testing.assert_array_equal(np.nan_to_num(one).view(np.uint32), np.nan_to_num(other).view(np.uint32))


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 70), seed=seeds, at=instants, cut=st.integers(0, 70))
def test_features_do_not_depend_on_batch_or_broadcast(n: int, seed: int, at: float, cut: int) -> None:
    requester, candidates, known = crowd(1, seed), crowd(n, seed + 1, first_id=2), context(n, seed)
    repeated = requester.take(np.zeros(n, dtype=np.int64))
    whole = ranking_features(requester, candidates, known, at)
    same_bits(whole, ranking_features(repeated, candidates, known, np.full(n, at)))
    forward, backward = ranking_features_both(requester, candidates, known, at)
    same_bits(whole, forward)
    same_bits(backward, ranking_features(candidates, repeated, known.reversed(), at))
    for part in (np.arange(min(cut, n)), np.arange(min(cut, n), n)):
        if len(part):
            same_bits(whole[part], ranking_features(requester, candidates.take(part), known.take(part), at))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 70), seed=seeds, at=instants)
def test_content_and_eligibility_do_not_depend_on_batch_or_order(n: int, seed: int, at: float) -> None:
    requester, candidates = crowd(1, seed), crowd(n, seed + 1, first_id=2)
    scores, eligible = content_score(requester, candidates, at), mutually_eligible(requester, candidates, at)
    inputs = content_inputs(candidates, at)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(scores, content_score(candidates, requester, at))
    np.testing.assert_array_equal(eligible, mutually_eligible(candidates, requester, at))
    for row in range(n):
        one = candidates.take([row])
        same_bits(scores[row : row + 1], content_score(requester, one, at))
        assert eligible[row] == mutually_eligible(requester, one, at)[0]
        same_bits(inputs[row : row + 1], content_inputs(one, at))
