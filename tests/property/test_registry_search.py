"""Laws of searching and merging for inputs nobody thought of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from registry.errors import InvalidQuery
from registry.models.embedding import Embedding, EmbeddingParameters
from registry.models.item_index import ItemIndex
from registry.scoring.retrieval import CandidateList, merge_candidates

finite = st.floats(-1e6, 1e6, width=32)
anything = st.floats(width=32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_search_gives_known_people_once_best_first_or_refuses(data: st.DataObject) -> None:
    n, width = data.draw(st.integers(0, 40)), data.draw(st.sampled_from([2, 4, 8]))
    vectors = data.draw(hnp.arrays(np.float32, (n, width), elements=finite))
    ids = np.array(data.draw(st.lists(st.integers(1, 2**62), min_size=n, max_size=n, unique=True)), dtype=np.int64)
    index, _ = ItemIndex.build(ids, vectors)
    query = data.draw(hnp.arrays(np.float32, width, elements=anything))
    wanted = data.draw(st.integers(1, 60))
    try:
        found, scores = index.search(query, wanted)
    except InvalidQuery:
        assert not np.isfinite(query).all() or np.abs(query).max() > 1e12
        return
    assert len(found) == len(scores) == min(n, wanted)
    assert set(found.tolist()) <= set(ids.tolist())
    assert len(set(found.tolist())) == len(found)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) <= 0).all()


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 30), unique=True, max_size=20)))
def test_merging_keeps_everybody_once_with_every_source_and_rank(found: dict[str, list[int]]) -> None:
    lists = {
        source: CandidateList(np.array(ids, np.int64), np.arange(len(ids), 0, -1, dtype=np.float32))
        for source, ids in found.items()
    }
    merged = merge_candidates(lists)
    assert merged.ids.tolist() == list(dict.fromkeys(user_id for ids in found.values() for user_id in ids))
    for row, user_id in enumerate(merged.ids.tolist()):
        expected = {source: ids.index(user_id) for source, ids in found.items() if user_id in ids}
        assert merged.found_by(np.array([row])) == [tuple(expected)]
        assert merged.sources[merged.primary[row]] == next(iter(expected))
        for source, rank in expected.items():
            column = merged.sources.index(source)
            assert merged.ranks[row, column] == rank
            assert merged.scores[row, column] == lists[source].scores[rank]


@settings(max_examples=50, deadline=None)
@given(
    liked=st.sets(st.integers(1, 40), max_size=15),
    passed=st.sets(st.integers(1, 40), max_size=15),
    alpha=st.floats(1, 100),
    regularization=st.floats(0.01, 100),
)
def test_a_fold_in_is_finite_and_does_not_depend_on_order(
    liked: set[int], passed: set[int], alpha: float, regularization: float
) -> None:
    rng = np.random.default_rng(0)
    chooser, chosen = rng.normal(size=(2, 30, 4)).astype(np.float32)
    embedding = Embedding(
        np.arange(1, 31),
        chooser,
        chosen,
        np.zeros((1, 8), np.float32),
        np.zeros(8, np.float32),
        EmbeddingParameters(alpha=alpha, pass_confidence=3.0, regularization=regularization),
    )
    one = embedding.fold_in_chooser(sorted(liked), sorted(passed))
    other = embedding.fold_in_chooser(sorted(liked, reverse=True), sorted(passed, reverse=True))
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
