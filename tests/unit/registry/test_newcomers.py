"""Newcomers are searched beside the index, and the two answers are one list."""

from pathlib import Path

import numpy as np
import pytest

from registry.errors import CorruptArtifact, InvalidVectors
from registry.models.embedding import item_vectors, query_vectors
from registry.models.item_index import IndexConfig, ItemIndex
from registry.scoring.newcomers import Newcomers, newcomer_vectors, standing, with_newcomers
from registry.scoring.retrieval import CandidateList, Factors, Origin, retrieve
from tests.releases import CONTENT_WIDTH, DIMENSIONS, N_PEOPLE, make_embedding, make_index

EMBEDDING = make_embedding()
ODD = Factors(EMBEDDING.chooser[0], EMBEDDING.chosen[0], Origin.FITTED)
NOBODY = np.empty(0, dtype=np.int64)


class Parts:
    """An embedding and an index over the first `indexed` of its people."""

    def __init__(self, indexed: int) -> None:
        self.embedding = EMBEDDING
        vectors = item_vectors(EMBEDDING.chooser, EMBEDDING.chosen)
        self.index = ItemIndex.build(EMBEDDING.user_ids[:indexed], vectors[:indexed], IndexConfig(threads=1))[0]


def newcomers(ids: list[int], outdated: list[int] | None = None) -> Newcomers:
    rows = EMBEDDING.positions(ids)
    vectors = item_vectors(EMBEDDING.chooser[rows], EMBEDDING.chosen[rows])
    return Newcomers(np.array(ids), vectors, np.array(outdated or [], dtype=np.int64))


def test_an_index_and_the_newcomers_answer_as_an_index_of_all_of_them() -> None:
    parts = Parts(40)
    late = newcomers(list(range(41, N_PEOPLE + 1)))
    for n in (5, 30, 60):
        whole = retrieve(Parts(N_PEOPLE), ODD, n)
        both = with_newcomers(retrieve(parts, ODD, n), late, ODD, n, 0.5)
        assert both.ids.tolist() == whole.ids.tolist()
        assert both.scores == pytest.approx(whole.scores, rel=1e-5)


def test_what_an_outdated_vector_of_the_index_says_does_not_count() -> None:
    parts = Parts(N_PEOPLE)
    best = int(retrieve(parts, ODD, 1).ids[0])
    changed = Newcomers(np.array([best]), np.full((1, 2 * DIMENSIONS), -1e-3, np.float32), np.array([best]))
    found = with_newcomers(retrieve(parts, ODD, N_PEOPLE), changed, ODD, N_PEOPLE, 0.5)
    assert found.ids.tolist().count(best) == 1
    query = query_vectors(ODD.chooser[None], ODD.chosen[None], 0.5)[0]
    assert found.scores[found.ids == best] == pytest.approx(query @ changed.vectors[0], rel=1e-5)


def test_without_newcomers_the_answer_of_the_index_stays_as_it_is() -> None:
    found = CandidateList(np.array([3, 1]), np.array([2.0, 1.0], np.float32))
    assert with_newcomers(found, None, ODD, 2, 0.5) is found
    assert with_newcomers(found, newcomers([]), ODD, 2, 0.5) is found


def test_newcomers_who_fit_worse_than_everybody_found_change_nothing() -> None:
    parts = Parts(N_PEOPLE)
    late = Newcomers(np.array([99]), -item_vectors(ODD.chooser[None], ODD.chosen[None]))
    found = retrieve(parts, ODD, 10)
    assert with_newcomers(found, late, ODD, 10, 0.5).ids.tolist() == found.ids.tolist()


def test_newcomers_that_cannot_be_compared_are_refused() -> None:
    row = np.zeros((1, 2 * DIMENSIONS), np.float32)
    with pytest.raises(InvalidVectors, match="must align"):
        Newcomers(np.array([1, 2]), row)
    with pytest.raises(InvalidVectors, match="not finite"):
        Newcomers(np.array([1]), row + np.nan)
    with pytest.raises(InvalidVectors, match="ascending"):
        Newcomers(np.array([2, 1]), np.zeros((2, 2 * DIMENSIONS), np.float32))
    with pytest.raises(InvalidVectors, match="width 3"):
        Newcomers(np.array([1]), row).search(np.zeros(3, np.float32), 1)


def test_an_index_tells_who_is_missing_and_whom_it_knows_by_another_profile() -> None:
    vectors = item_vectors(EMBEDDING.chooser, EMBEDDING.chosen)[:4]
    prints = np.array([0, 0, 7, 8], dtype=np.uint64)
    index, _ = ItemIndex.build(np.array([4, 3, 2, 1]), vectors, IndexConfig(threads=1), fingerprints=prints)
    now = np.array([8, 9, 5, 6, 1], dtype=np.uint64)
    asked: list[int] = []

    def fingerprints(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return now[rows]

    missing, outdated = standing(index, np.array([1, 2, 3, 4, 5]), fingerprints)
    assert missing.tolist() == [False, False, False, False, True]
    assert outdated.tolist() == [False, True, False, False, False]
    assert asked == [0, 1], "only profiles that decide are looked at"


def test_an_index_without_fingerprints_is_right_about_everybody_it_holds() -> None:
    missing, outdated = standing(make_index(EMBEDDING), np.array([1, 61]), lambda rows: np.ones(len(rows), np.uint64))
    assert (missing.tolist(), outdated.any()) == ([False, True], False)


def test_fingerprints_are_kept_with_the_index(tmp_path: Path) -> None:
    vectors = item_vectors(EMBEDDING.chooser, EMBEDDING.chosen)
    prints = np.arange(N_PEOPLE, dtype=np.uint64)
    index, _ = ItemIndex.build(EMBEDDING.user_ids, vectors, IndexConfig(threads=1), fingerprints=prints)
    index.save(tmp_path / "index", {"embedding_digest": "e" * 64})
    found = ItemIndex.load(tmp_path / "index").fingerprints
    assert found is not None
    assert found.tolist() == prints.tolist()


def test_fingerprints_of_other_people_are_refused(tmp_path: Path) -> None:
    vectors = item_vectors(EMBEDDING.chooser, EMBEDDING.chosen)
    with pytest.raises(InvalidVectors, match="fingerprints"):
        ItemIndex.build(EMBEDDING.user_ids, vectors, fingerprints=np.zeros(3, np.uint64))
    index = make_index(EMBEDDING)
    wrong = type(index)(
        index.index, index.user_ids, index.kind, index.canary_queries, index.canary_ids, 1, np.zeros(3, np.uint64)
    )
    wrong.save(tmp_path / "index", {"embedding_digest": "e" * 64})
    with pytest.raises(CorruptArtifact, match="3 fingerprints"):
        ItemIndex.load(tmp_path / "index")


def test_a_newcomer_is_known_by_profile_and_corrected_by_first_likes() -> None:
    inputs = np.zeros((3, CONTENT_WIDTH), np.float32)
    inputs[:, 0] = (1.0, 1.0, 1.0)
    liked = np.array([[-1, -1], [2, -1], [2, -1]])
    found = newcomer_vectors(EMBEDDING, np.array([70, 71, 1]), inputs, liked)
    prior_chooser, prior_chosen = EMBEDDING.content_factors(inputs[:1])
    assert found[0] == pytest.approx(item_vectors(prior_chooser, prior_chosen)[0])
    folded = EMBEDDING.fold_in_chooser([2], prior=prior_chooser[0])
    assert found[1] == pytest.approx(item_vectors(folded[None], prior_chosen)[0])
    assert found[2] == pytest.approx(item_vectors(EMBEDDING.chooser[:1], EMBEDDING.chosen[:1])[0])
