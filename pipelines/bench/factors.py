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

from pipelines.ingest.inhabitants import DAY_S, GENDERS, YEAR_DAYS, Inhabitants
from pipelines.retrieval.config import EmbeddingConfig
from pipelines.retrieval.content import ContentInputs, ContentMap, fit_content_map
from pipelines.retrieval.half_step import half_step
from registry.embedding import Embedding, EmbeddingParameters

Floats = npt.NDArray[np.float32]
DIMENSIONS: Final = 64
_CITY, _AGE = 32, 12
_STEPS: Final = 6
_AGE_SCALE_YEARS: Final = 5.0
_MAP_PEOPLE: Final = 50_000
_NOISE: Final = 0.05
_WEIGHTS: Final = {"city": 1.0, "gender": 1.0, "age": 0.7, "taste": 0.12, "popularity": 0.15}


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
    config = EmbeddingConfig(regularization=10.0)
    rng = np.random.default_rng([seed, 64])
    chosen = _as_chosen(people, until_s, rng)
    turned = matrix.T.tocsr()
    zeros = np.zeros_like(chosen)
    chooser = chosen
    for number, (rows, is_chooser) in enumerate(((matrix, True), (turned, False), (matrix, True))):
        progress(number, 4)
        others = chosen if is_chooser else chooser
        solved = half_step(
            rows, others, zeros, zeros, regularization=config.regularization, steps=_STEPS, threads=config.threads
        )
        # Nobody's decisions about somebody leave a zero: such people keep a typical factor of their kind.
        silent = np.diff(rows.indptr) == 0
        solved[silent] = _typical(people, solved, silent)
        chooser, chosen = (solved, chosen) if is_chooser else (chooser, solved)
    progress(3, 4)
    mapped = _content_map(content_inputs, chooser, chosen, rng)
    progress(4, 4)
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
            fit={"made_by": "pipelines.bench.factors", "seed": seed},
        ),
    )


def _as_chosen(people: Inhabitants, until_s: int, rng: np.random.Generator) -> Floats:
    """Lay out what makes somebody be chosen: city, gender, age, traits, popularity."""
    n = len(people)
    n_cities = int(people.city.max()) + 1
    city = _unit(rng.standard_normal((n_cities, _CITY)).astype(np.float32))
    age = (until_s / DAY_S - people.birth_day) / YEAR_DAYS
    # Random Fourier features: people of like age point the same way.
    frequency = rng.standard_normal(_AGE).astype(np.float32) / np.float32(_AGE_SCALE_YEARS)
    phase = rng.uniform(0, 2 * np.pi, _AGE).astype(np.float32)
    waves = np.cos(age.astype(np.float32)[:, None] * frequency + phase) * np.float32(np.sqrt(2 / _AGE))
    gender = (people.gender[:, None] == np.arange(len(GENDERS))).astype(np.float32)
    blocks = [
        _WEIGHTS["city"] * city[people.city],
        _WEIGHTS["gender"] * gender,
        _WEIGHTS["age"] * waves,
        _WEIGHTS["taste"] * people.trait,
        _WEIGHTS["popularity"] * people.popularity[:, None],
    ]
    out = np.zeros((n, DIMENSIONS), dtype=np.float32)
    end = 0
    for block in blocks:
        out[:, end : end + block.shape[1]] = block
        end += block.shape[1]
    out += np.float32(_NOISE) * rng.standard_normal(out.shape, dtype=np.float32)
    return out


def _typical(people: Inhabitants, factors: Floats, silent: npt.NDArray[np.bool_]) -> Floats:
    """Return, for each silent person, the mean factor of those of the same city and gender who are not silent."""
    kind = people.city.astype(np.int64) * len(GENDERS) + people.gender
    n_kinds = int(kind.max(initial=0)) + 1
    count = np.maximum(np.bincount(kind[~silent], minlength=n_kinds), 1)
    heard = sparse.csr_matrix(
        (np.ones(int((~silent).sum()), np.float32), (kind[~silent], np.flatnonzero(~silent))),
        shape=(n_kinds, len(kind)),
    )
    means = np.asarray(heard @ factors, dtype=np.float32) / count[:, None].astype(np.float32)
    return means[kind[silent]]


def _content_map(inputs: ContentInputs, chooser: Floats, chosen: Floats, rng: np.random.Generator) -> ContentMap:
    ridge = EmbeddingConfig().content_regularization
    rows = np.zeros(len(chooser), dtype=np.bool_)
    rows[rng.choice(len(chooser), size=min(_MAP_PEOPLE, len(chooser)), replace=False)] = True
    return ContentMap.stacked(*(fit_content_map(inputs, side, rows, ridge) for side in (chooser, chosen)))


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)
