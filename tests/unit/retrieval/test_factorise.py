"""Factors find the one right answer of tiny worlds, and equal inputs give equal bytes."""

import numpy as np
import pytest
from scipy import sparse

from pipelines.features.events import LIKE, PASS, Events
from pipelines.retrieval.config import EmbeddingConfig, IndexBuildConfig
from pipelines.retrieval.content import fit_content_map
from pipelines.retrieval.dataset import confidence_matrix, first_decisions, latest_decisions
from pipelines.retrieval.errors import BadInputs, RetrievalError, TooFewLikes
from pipelines.retrieval.factorise import fit_embedding
from pipelines.retrieval.half_step import EXACT, half_step
from pipelines.retrieval.index_build import build_candidate_index
from pipelines.retrieval.plots import embedding_norms, recall_curve
from pipelines.retrieval.refresh import refreshed
from registry.models.embedding import query_vectors
from registry.models.item_index import IndexConfig

N = 24
IDS = np.arange(1, N + 1, dtype=np.int64) * 10
WITHHELD = 4
SMALL = EmbeddingConfig(
    dimensions=4, alpha=20, pass_confidence=20, regularization=5, content_regularization=1, threads=1
)
PNG = b"\x89PNG"


def events(*rows: tuple[int, int, int, int]) -> Events:
    """Rows of actor, target (positions), kind, microsecond."""
    actor, target, kind, at = (np.array(column) for column in zip(*rows, strict=True))
    return Events(IDS, actor.astype(np.int32), target.astype(np.int32), kind.astype(np.int8), at.astype(np.int64))


def two_groups() -> Events:
    """Everybody likes those of the same parity and passes on the others; person 0 has not met person WITHHELD."""
    rows = [
        (a, b, LIKE if a % 2 == b % 2 else PASS, 1)
        for a in range(N)
        for b in range(N)
        if a != b and {a, b} != {0, WITHHELD}
    ]
    return events(*rows)


def group_and_constant(positions: np.ndarray) -> np.ndarray:
    """Content: the group, noise, and a column that never varies."""
    noise = np.random.default_rng(5).normal(size=N)
    return np.stack([positions % 2, noise[positions], np.ones(len(positions))], axis=1).astype(np.float32)


def nothing(positions: np.ndarray) -> np.ndarray:
    return np.zeros((len(positions), 1), dtype=np.float32)


@pytest.mark.parametrize("content_rounds", [0, 4])
def test_the_withheld_partner_is_ranked_first_among_the_undecided(content_rounds: int) -> None:
    config = SMALL.model_copy(update={"content_rounds": content_rounds})
    embedding, report = fit_embedding(two_groups(), IDS, group_and_constant, config)
    scores = embedding.chooser[0] @ embedding.chosen.T
    other_group = np.arange(N) % 2 == 1
    assert scores[WITHHELD] > scores[other_group].max()
    assert (report.likes, report.dimensions) == (N * (N // 2 - 1) - 2, 4)


def test_equal_inputs_give_equal_bytes_whatever_the_threads() -> None:
    one, _ = fit_embedding(two_groups(), IDS, group_and_constant, SMALL)
    two, _ = fit_embedding(two_groups(), IDS, group_and_constant, SMALL.model_copy(update={"threads": 2}))
    for name in ("chooser", "chosen", "content_weights", "content_intercept"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


def test_a_newcomer_is_served_from_the_profile() -> None:
    known = two_groups()
    last = N - 1
    seen = known.take((known.actor != last) & (known.target != last))
    embedding, _ = fit_embedding(seen, IDS, group_and_constant, SMALL)
    assert not embedding.known([IDS[last]])[0]
    chooser, chosen = embedding.vectors([IDS[last]], group_and_constant(np.array([last])))
    same = embedding.chosen[np.arange(N - 1) % 2 == last % 2]
    other = embedding.chosen[np.arange(N - 1) % 2 != last % 2]
    assert (chooser[0] @ same.T).mean() > (chooser[0] @ other.T).mean()
    likers = embedding.chooser[np.arange(N - 1) % 2 == last % 2]
    assert (likers @ chosen[0]).mean() > 0.3


def test_a_fold_in_of_the_same_decisions_gives_the_fitted_factor() -> None:
    embedding, _ = fit_embedding(two_groups(), IDS, group_and_constant, SMALL)
    liked = IDS[[b for b in range(2, N, 2) if b != WITHHELD]]
    prior = embedding.content_factors(group_and_constant(np.array([0])))[0][0]
    folded = embedding.fold_in_chooser(liked, IDS[1::2], prior=prior)
    np.testing.assert_allclose(folded, embedding.chooser[0], atol=2e-4)


def test_a_refresh_equals_a_fold_in_and_leaves_the_idle_alone() -> None:
    everything = two_groups()
    early = everything.take((everything.actor != 1) & (everything.target != 1))
    embedding, _ = fit_embedding(early, IDS, group_and_constant, SMALL)
    later = Events(
        IDS,
        np.append(early.actor, 0).astype(np.int32),
        np.append(early.target, 6).astype(np.int32),
        np.append(early.kind, PASS).astype(np.int8),
        np.append(early.at_us, 9),
    )
    fresh, moved = refreshed(embedding, later, 1, group_and_constant)
    assert moved == 2
    row = int(embedding.positions([IDS[0]])[0])
    liked = IDS[[b for b in range(2, N, 2) if b not in {WITHHELD, 6}]]
    prior = embedding.content_factors(group_and_constant(np.array([0])))[0][0]
    folded = embedding.fold_in_chooser(liked, IDS[[6, *range(3, N, 2)]], prior=prior)
    np.testing.assert_allclose(fresh.chooser[row], folded, atol=2e-4)
    np.testing.assert_array_equal(fresh.chooser[row + 1 :], embedding.chooser[row + 1 :])


def test_a_half_step_solves_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    others = rng.normal(size=(9, 3)).astype(np.float32)
    dense = rng.choice([0.0, 0.0, 6.0, -3.0], (5, 9)).astype(np.float32)
    prior = rng.normal(size=(5, 3)).astype(np.float32)
    solved = half_step(
        sparse.csr_matrix(dense), others, prior, np.zeros_like(prior), regularization=2.0, steps=EXACT, threads=2
    )
    for row in range(5):
        extra = np.where(dense[row] != 0, np.abs(dense[row]) - 1, 0)
        left = others.T @ others + others.T @ np.diag(extra) @ others + 2.0 * np.eye(3)
        right = others.T @ np.maximum(dense[row], 0) + 2.0 * prior[row]
        np.testing.assert_allclose(solved[row], np.linalg.solve(left, right), atol=1e-4)


def test_the_latest_decision_of_a_pair_is_learned_and_the_first_is_labelled() -> None:
    changed = events((0, 1, PASS, 1), (2, 3, LIKE, 2), (0, 1, LIKE, 3))
    assert confidence_matrix(changed, SMALL)[0, 1] == 20
    assert latest_decisions(changed).at_us.tolist() == [2, 3]
    assert first_decisions(changed).at_us.tolist() == [1, 2]


def test_a_linear_content_map_is_recovered() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(200, 4)).astype(np.float32)
    inputs[:, 3] = 7.0
    truth = np.array([[1.0, 0], [0, 2], [-1, 1], [0, 0]], dtype=np.float32)
    factors = inputs @ truth + 3
    fitted = fit_content_map(lambda rows: inputs[rows], factors, np.ones(200, dtype=np.bool_), 0.001)
    np.testing.assert_allclose(fitted.weights, truth, atol=1e-3)
    assert fitted.r2[0] == pytest.approx(1.0, abs=1e-4)
    empty = fit_content_map(lambda rows: inputs[rows], factors, np.zeros(200, dtype=np.bool_), 1.0)
    assert not empty.weights.any()


def test_the_index_holds_everybody_visible_and_finds_the_reciprocal_best() -> None:
    embedding, _ = fit_embedding(two_groups(), IDS, group_and_constant, SMALL)
    newcomer = np.append(IDS, 999)
    index, report = build_candidate_index(
        embedding,
        newcomer,
        lambda positions: group_and_constant(np.minimum(positions, N - 1)),
        IndexBuildConfig(sample_queries=10),
    )
    assert len(index) == N + 1
    assert report.recall == 1.0
    query = query_vectors(embedding.chooser[:1], embedding.chosen[:1], 0.5)[0]
    found, _ = index.search(query, N // 2)
    assert set(found.tolist()) - {999} <= set(IDS[::2].tolist())
    for figure in (embedding_norms(embedding), recall_curve(report, IndexConfig().target_recall)):
        assert figure.startswith(PNG)
        assert len(figure) < 100_000


def test_progress_is_told_after_every_round() -> None:
    told: list[tuple[int, int]] = []
    config = SMALL.model_copy(update={"iterations": 3, "content_rounds": 2})
    fit_embedding(two_groups(), IDS, nothing, config, lambda done, of, _seconds: told.append((done, of)))
    assert told == [(number, 5) for number in range(1, 6)]


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(TooFewLikes, match="0 likes") as caught:
        fit_embedding(events((0, 1, PASS, 1)), IDS, nothing, SMALL)
    assert isinstance(caught.value, RetrievalError)


def test_people_who_do_not_align_are_refused() -> None:
    with pytest.raises(BadInputs, match="ascend"):
        fit_embedding(two_groups(), IDS[::-1].copy(), nothing, SMALL)
    with pytest.raises(BadInputs, match="other people"):
        fit_embedding(two_groups(), IDS[:-1], nothing, SMALL)
    embedding, _ = fit_embedding(two_groups(), IDS, nothing, SMALL)
    with pytest.raises(BadInputs, match="Nobody is visible"):
        build_candidate_index(embedding, np.empty(0, dtype=np.int64), nothing)
