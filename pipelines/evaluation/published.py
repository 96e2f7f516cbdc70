"""The published two-sided baselines on the people of an evaluation: one requester's scores of everybody.

A baseline that has nothing to go by says None: its order would be chance.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from feature_repo.layout import INTEREST_BITS_PER_WORD, INTEREST_COLUMNS, PROFILE
from feature_repo.population.people import People
from pipelines.evaluation.baselines.lfrr import fit_side_models
from pipelines.evaluation.baselines.recon import attribute_values, preferences, quantile_codes, reciprocal_compatibility
from pipelines.features.events import Events
from pipelines.retrieval.neighbours import Likes

Scores = Callable[[int], npt.NDArray[np.float64]]
"""What one requester, by position, would see everybody by: float64[n people]."""
_BINS: Final = 5
_MOST_VALUES: Final = 12
"""An attribute with more different values is a number, and is cut into bins."""


def recon(people: People, before: Events) -> Scores | None:
    """Return content reciprocity; None where profiles tell nobody from anybody, or nobody likes anybody."""
    likes = _likes(before)
    codes = {"age": quantile_codes(people.profile[:, PROFILE.index("birth_day")], _BINS)}
    for slot, values in enumerate(people.attributes.T):
        codes[f"attribute {slot}"] = _codes(values)
    telling = {name: code for name, code in codes.items() if np.unique(code).size > 1}
    interests = _interests(people)
    if not likes.nnz or not (telling or interests):
        return None
    held, n_attributes = attribute_values(telling, interests)
    preferred = preferences(likes, held)
    return lambda requester: reciprocal_compatibility(preferred, held, n_attributes, requester)


def lfrr(people: People, before: Events, seed: int) -> Scores | None:
    """Return latent factors of either side, met in their harmonic mean; None where likes go one way only.

    The sides are the commonest gender and everybody else; without genders one model serves everybody.
    """
    likes = _likes(before)
    making, receiving = np.diff(likes.indptr) > 0, np.bincount(likes.indices, minlength=len(people)) > 0
    if not (making & receiving).any():
        return None
    gender = np.maximum(np.nan_to_num(people.profile[:, PROFILE.index("gender")]), 0).astype(np.int64)
    models = fit_side_models(likes, gender != np.bincount(gender).argmax(), seed=seed)
    return models.scores


def _likes(before: Events) -> sparse.csr_array:
    return sparse.csr_array(Likes.of(before).matrix)


def _codes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    different = np.unique(values[np.isfinite(values)])
    if different.size > _MOST_VALUES:
        return quantile_codes(values, _BINS)
    return np.where(np.isfinite(values), np.searchsorted(different, values), -1).astype(np.int64)


def _interests(people: People) -> list[sparse.csr_array]:
    """Return the interests as ones, CSR [n, buckets]; nothing where all have the same."""
    words = people.profile[:, [PROFILE.index(name) for name in INTEREST_COLUMNS]].astype(np.int64)
    if (words == words[:1]).all():
        return []
    bits = words[:, :, None] >> np.arange(INTEREST_BITS_PER_WORD) & 1
    return [sparse.csr_array(bits.reshape(len(people), -1))]
