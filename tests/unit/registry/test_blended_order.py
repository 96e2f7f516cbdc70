"""The blend orders by how far the factors and likes in common, together, put somebody above the rest of the list."""

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.layout import EVIDENCE_COLUMNS
from feature_repo.transforms import PairContext
from registry.scoring.list_policy import ListPolicy, Order
from registry.scoring.ranking import scored_by

IDS = np.arange(1, 5)
BLEND = ListPolicy(Order.BLEND, weight=1.0)


def context(factors: list[float], **evidence: list[float]) -> PairContext:
    unknown = np.full((4, len(EVIDENCE_COLUMNS)), np.nan, dtype=np.float32)
    for source, scores in evidence.items():
        unknown[:, EVIDENCE_COLUMNS.index(f"{source}_score")] = scores
    zeros = np.zeros(4, dtype=np.float32)
    return PairContext(np.array(factors, dtype=np.float32), zeros, zeros, zeros, zeros, zeros, unknown)


def ordered(policy: ListPolicy, known: PairContext) -> list[int]:
    unused = np.zeros(4, dtype=np.float32)
    return [int(IDS[row]) for row in scored_by(policy, known, unused, unused, unused).order(IDS)]


def test_whom_both_name_comes_before_whom_only_one_names_whatever_their_scales() -> None:
    known = context([3.0, 4.0, 0.0, 0.0], ease=[0.03, 0.0, 0.04, 0.0])
    assert ordered(BLEND, known) == [1, 2, 3, 4]


@pytest.mark.parametrize("evidence", [{}, {"ease": [0.0, 0.0, 0.0, 0.0]}, {"ease": [float("nan")] * 4}])
def test_the_factors_decide_where_likes_in_common_tell_nobody_apart(evidence: dict[str, list[float]]) -> None:
    assert ordered(BLEND, context([1.0, 4.0, 2.0, 3.0], **evidence)) == [2, 4, 3, 1]


def test_the_spectral_filter_speaks_where_nobody_fitted_ease() -> None:
    assert ordered(BLEND, context([0.0, 0.0, 0.0, 0.0], spectral=[0.1, 0.3, 0.2, 0.0])) == [2, 3, 1, 4]


def test_whom_likes_in_common_do_not_know_counts_as_the_least_of_those_they_know() -> None:
    known = context([0.0, 0.0, 0.0, 0.0], ease=[float("nan"), 0.2, 0.1, 0.3])
    assert ordered(BLEND, known) == [4, 2, 1, 3]


def test_both_sides_of_the_factors_count_by_the_weight() -> None:
    known = replace(context([1.0, 0.0, 0.0, 0.0]), score_backward=np.array([0, 0, 0, 3], dtype=np.float32))
    assert ordered(ListPolicy(Order.BLEND, weight=0.5), known)[0] == 4
