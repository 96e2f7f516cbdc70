"""From a requester to merged candidates."""

from typing import NamedTuple

import numpy as np
import pytest

from registry.errors import InvalidQuery, InvalidVectors
from registry.models.embedding import Embedding
from registry.models.item_index import ItemIndex
from registry.scoring.retrieval import (
    CandidateList,
    Origin,
    merge_candidates,
    query_for,
    retrieve,
)
from tests.releases import make_embedding, make_index

EMBEDDING = make_embedding()


class Retriever(NamedTuple):
    """What a release is to retrieval."""

    embedding: Embedding
    index: ItemIndex


RETRIEVER = Retriever(EMBEDDING, make_index(EMBEDDING))


def candidates(ids: list[int], propensity: list[float] | None = None) -> CandidateList:
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    return CandidateList(
        np.array(ids, np.int64), scores, None if propensity is None else np.array(propensity, np.float32)
    )


def test_a_known_person_is_asked_with_their_fitted_factors() -> None:
    factors = query_for(RETRIEVER, 3)
    assert factors.origin is Origin.FITTED
    assert np.array_equal(factors.chooser, EMBEDDING.chooser[2])
    found = retrieve(RETRIEVER, factors, 20)
    assert (found.ids % 2 == 1).all()
    assert (np.diff(found.scores) <= 0).all()


def test_a_new_person_is_asked_with_the_factors_of_their_profile() -> None:
    factors = query_for(RETRIEVER, 5000, np.array([[-1, 0, 0]], np.float32))
    assert factors.origin is Origin.CONTENT
    assert (retrieve(RETRIEVER, factors, 20).ids % 2 == 0).all()


def test_first_swipes_correct_the_profile() -> None:
    profile = np.array([[1, 0, 0]], np.float32)
    factors = query_for(RETRIEVER, 5000, profile, liked_ids=[2, 4, 6, 8], passed_ids=[1, 3], liked_by_ids=[2, 4, 6])
    assert factors.origin is Origin.FOLDED_IN
    assert (retrieve(RETRIEVER, factors, 20).ids % 2 == 0).all()


def test_decisions_about_unknown_people_change_nothing() -> None:
    assert query_for(RETRIEVER, 3, liked_ids=[9000]).origin is Origin.FITTED


def test_nobody_known_and_no_profile_cannot_be_asked() -> None:
    factors = query_for(RETRIEVER, 5000)
    assert factors.origin is Origin.NOTHING
    with pytest.raises(InvalidQuery, match="no factors at all"):
        retrieve(RETRIEVER, factors, 5)


def test_the_excluded_are_replaced_by_the_next_best() -> None:
    factors = query_for(RETRIEVER, 3)
    everybody = retrieve(RETRIEVER, factors, 20)
    without = retrieve(RETRIEVER, factors, 10, exclude_ids=everybody.ids[:10])
    assert without.ids.tolist() == everybody.ids[10:20].tolist()
    with pytest.raises(InvalidQuery):
        retrieve(RETRIEVER, factors, 0)


def test_one_sided_and_reciprocal_weights_ask_for_different_people() -> None:
    factors = query_for(RETRIEVER, 3)
    forward = EMBEDDING.chosen @ factors.chooser
    assert retrieve(RETRIEVER, factors, 1, weight=1.0).ids[0] == EMBEDDING.user_ids[forward.argmax()]
    backward = EMBEDDING.chooser @ factors.chosen
    assert retrieve(RETRIEVER, factors, 1, weight=0.0).ids[0] == EMBEDDING.user_ids[backward.argmax()]


def test_everybody_is_merged_once_with_all_their_sources() -> None:
    merged = merge_candidates(
        {"retrieval": candidates([5, 3, 9]), "content": candidates([9, 7]), "random": candidates([3], [0.1])}
    )
    assert merged.ids.tolist() == [5, 3, 9, 7]
    assert merged.ranks.tolist() == [[0, -1, -1], [1, -1, 0], [2, 0, -1], [-1, 1, -1]]
    assert merged.primary.tolist() == [0, 0, 0, 1]
    assert merged.found_by(np.array([1])) == [("retrieval", "random")]
    assert merged.propensity[1, 2] == np.float32(0.1)
    assert np.isnan(merged.propensity[0]).all()
    assert merged.scores[2, 1] == 1.0
    kept = merged.take(np.array([3, 0]))
    assert kept.ids.tolist() == [7, 5]
    assert len(kept) == 2


def test_no_candidates_at_all_merge_to_none() -> None:
    merged = merge_candidates({"retrieval": candidates([]), "content": candidates([])})
    assert len(merged) == 0
    assert merged.sources == ("retrieval", "content")
    assert len(merge_candidates({})) == 0


def test_a_person_named_twice_by_a_source_keeps_the_better_place() -> None:
    assert merge_candidates({"content": candidates([4, 8, 4])}).ranks.tolist() == [[0], [1]]


def test_scores_must_align_with_people() -> None:
    broken = CandidateList(np.arange(1, 4), np.zeros(2, np.float32))
    with pytest.raises(InvalidVectors, match="`content` found"):
        merge_candidates({"content": broken})
