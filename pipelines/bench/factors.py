"""Factors for a world of any size, with the structure that a fitted embedding has, without fitting one.

They start from the generator's own truth (who seeks whom, where, of which age, with which taste), laid out in as many
dimensions as a real embedding has. Then the real half-steps of the factorisation run over the real decisions, so that
scales, norms and fold-ins at request time are those of a fit, and neighbours in the index are people who fit.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipelines.ingest.world.inhabitants import DAY_S, GENDERS, YEAR_DAYS, Inhabitants
from pipelines.retrieval.config import EmbeddingConfig
from pipelines.retrieval.content import ContentInputs, ContentMap, fit_content_map
from pipelines.retrieval.errors import BadInputs
from pipelines.retrieval.half_step import half_step
from registry.models.embedding import Embedding, EmbeddingParameters

Floats = npt.NDArray[np.float32]
DIMENSIONS: Final = 64
_KIND: Final = 52
_WAVES: Final = 4
_STEPS: Final = 4
_LAST_STEPS: Final = 8
_ROUNDS: Final = 2
_AGE_SCALE_YEARS: Final = 8.0
_MAP_PEOPLE: Final = 50_000
_NOISE: Final = 0.05
_TASTE, _POPULARITY = 0.12, 0.1


def bench_embedding(
    people: Inhabitants,
    user_ids: npt.NDArray[np.int64],
    matrix: sparse.csr_matrix,
    content_inputs: ContentInputs,
    *,
    until_s: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Embedding:
    """Return factors of everybody, float32[n, 64] in each role, and the map from profiles to them.

    `matrix` holds the signed confidences of the decisions, [n, n]; `content_inputs` gives the profiles' inputs.
    """
    config = EmbeddingConfig()
    rng = np.random.default_rng([seed, 64])
    chosen = _as_chosen(people, until_s, rng)
    chooser = np.zeros_like(chosen)
    turned = matrix.T.tocsr()
    prior_chooser, prior_chosen = chooser, np.zeros_like(chosen)
    mapped = None
    for number in range(_ROUNDS):
        chooser = _solved(matrix, chosen, prior_chooser, config, last=number == _ROUNDS - 1)
        progress(3 * number + 1, 3 * _ROUNDS)
        if number < _ROUNDS - 1:
            chosen = _solved(turned, chooser, prior_chosen, config)
            progress(3 * number + 2, 3 * _ROUNDS)
            mapped = _content_map(content_inputs, (chooser, matrix), (chosen, turned), rng)
            predicted = mapped.predict_all(content_inputs, len(chosen))
            prior_chooser, prior_chosen = (np.ascontiguousarray(half) for half in np.hsplit(predicted, 2))
            del predicted
            _take_prior(chosen, prior_chosen, turned)
        progress(3 * number + 3, 3 * _ROUNDS)
    if mapped is None:
        raise BadInputs("Factors need two rounds at least, so that the second can be pulled to the profiles.")
    return Embedding(
        user_ids=user_ids,
        chooser=chooser,
        chosen=chosen,
        content_weights=mapped.weights,
        content_intercept=mapped.intercept,
        parameters=EmbeddingParameters(
            alpha=config.alpha,
            pass_confidence=config.pass_confidence,
            regularization=config.regularization,
            content_prior=True,
            fit={"made_by": "pipelines.bench.factors", "seed": seed},
        ),
    )


def _solved(
    matrix: sparse.csr_matrix, others: Floats, prior: Floats, config: EmbeddingConfig, *, last: bool = False
) -> Floats:
    """Solve one side with the other held fixed; whoever has no decisions in this role takes what the profile says."""
    solved = half_step(
        matrix,
        others,
        prior,
        prior,
        regularization=config.regularization,
        steps=_LAST_STEPS if last else _STEPS,
        threads=config.threads,
    )
    _take_prior(solved, prior, matrix)
    return solved


def _take_prior(factors: Floats, prior: Floats, matrix: sparse.csr_matrix) -> None:
    silent = np.diff(matrix.indptr) == 0
    factors[silent] = prior[silent]


def _as_chosen(people: Inhabitants, until_s: int, rng: np.random.Generator) -> Floats:
    """Lay out what makes somebody be chosen: city, gender and age together, traits, popularity."""
    n = len(people)
    age = ((until_s / DAY_S - people.birth_day) / YEAR_DAYS).astype(np.float32)
    # Random Fourier features: people of like age point the same way, and each kind of people to a place of its own.
    frequency = rng.standard_normal(_WAVES).astype(np.float32) / np.float32(_AGE_SCALE_YEARS)
    frequency[0] = 0.0
    phase = rng.uniform(0, 2 * np.pi, _WAVES).astype(np.float32) * (frequency != 0)
    kind = people.city.astype(np.int64) * len(GENDERS) + people.gender
    directions = rng.standard_normal((_WAVES, int(kind.max()) + 1, _KIND)).astype(np.float32)
    placed = np.zeros((n, _KIND), dtype=np.float32)
    for wave in range(_WAVES):
        placed += np.cos(age * frequency[wave] + phase[wave])[:, None] * directions[wave][kind]
    blocks = [
        _unit(placed),
        np.float32(_TASTE) * people.trait,
        np.float32(_POPULARITY) * people.popularity[:, None],
    ]
    out = np.zeros((n, DIMENSIONS), dtype=np.float32)
    end = 0
    for block in blocks:
        out[:, end : end + block.shape[1]] = block
        end += block.shape[1]
    out += np.float32(_NOISE) * rng.standard_normal(out.shape, dtype=np.float32)
    return out


def _content_map(
    inputs: ContentInputs,
    chooser: tuple[Floats, sparse.csr_matrix],
    chosen: tuple[Floats, sparse.csr_matrix],
    rng: np.random.Generator,
) -> ContentMap:
    """Fit the map on a sample of those who have decisions: it has a few hundred inputs, not millions."""
    ridge = EmbeddingConfig().content_regularization
    maps = []
    for factors, matrix in (chooser, chosen):
        heard = np.flatnonzero(np.diff(matrix.indptr) > 0)
        rows = np.zeros(len(factors), dtype=np.bool_)
        rows[rng.choice(heard, size=min(_MAP_PEOPLE, len(heard)), replace=False)] = True
        maps.append(fit_content_map(inputs, factors, rows, ridge))
    return ContentMap.stacked(*maps)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)
