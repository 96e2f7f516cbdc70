"""Factorise the decisions before an instant into two factors per person: P who chooses, Q who is chosen.

Alternating least squares of `implicit` on likes and passes, then a linear map from profiles to factors for whoever
has too few decisions. Each person's factor is solved alone and BLAS runs on one thread, so the same inputs and seed
give the same bytes whatever the number of threads. Too few likes and inputs that do not align are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from pipelines.features.events import Events
from pipelines.retrieval.config import EmbeddingConfig
from pipelines.retrieval.content import ContentInputs, ContentMap, fit_content_map
from pipelines.retrieval.dataset import confidence_matrix, decision_counts
from pipelines.retrieval.errors import BadInputs
from registry.embedding import Embedding, EmbeddingParameters

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, float], None]
"""Called after every iteration with its number from 1, their total, and its seconds."""


@dataclass(frozen=True)
class EmbeddingReport:
    """What a fit saw and gave; `content_r2` is the explained share of the factors' variance, (P, Q)."""

    people: int
    likes: int
    passes: int
    dimensions: int
    fitted_as_chooser: int
    fitted_as_chosen: int
    content_r2: tuple[float, float]

    def metrics(self) -> dict[str, float]:
        """Return the numbers worth logging."""
        return {
            "people": float(self.people),
            "likes": float(self.likes),
            "passes": float(self.passes),
            "dimensions": float(self.dimensions),
            "fitted_as_chooser": float(self.fitted_as_chooser),
            "fitted_as_chosen": float(self.fitted_as_chosen),
            "content_r2_chooser": self.content_r2[0],
            "content_r2_chosen": self.content_r2[1],
        }


def fit_embedding(
    interactions: Events | pd.DataFrame,
    user_ids: npt.NDArray[np.int64],
    content_inputs: ContentInputs,
    config: EmbeddingConfig | None = None,
    progress: Progress | None = None,
) -> tuple[Embedding, EmbeddingReport]:
    """Fit factors of everybody with enough decisions in either role.

    Give only the interactions of the embeddings' window. `user_ids` int64[n] ascending are all people and
    `content_inputs` gives float32[m, c] of those at m positions; whoever lacks decisions is served from the profile.

    Raises:
        BadInputs: ids do not ascend, or the interactions are numbered over other people.
        TooFewLikes: there is nothing to factorise.

    """
    config = config or EmbeddingConfig()
    if user_ids.size and np.any(np.diff(user_ids) <= 0):
        raise BadInputs("The people's ids must ascend without repeats.")
    events = _over(interactions, user_ids)
    matrix = confidence_matrix(events, config)
    made, received = decision_counts(events)
    chooses, is_chosen = made >= config.min_interactions, received >= config.min_interactions
    chooser, chosen = _alternate(matrix, _dimensions(config, events.n_people), config, progress)
    from_profile = ContentMap.stacked(
        fit_content_map(content_inputs, chooser, chooses, config.content_regularization),
        fit_content_map(content_inputs, chosen, is_chosen, config.content_regularization),
    )
    inside = np.flatnonzero(chooses | is_chosen)
    chooser, chosen = chooser[inside], chosen[inside]
    predicted = from_profile.predict(content_inputs(inside))
    width = chooser.shape[1]
    chooser[~chooses[inside]] = predicted[~chooses[inside], :width]
    chosen[~is_chosen[inside]] = predicted[~is_chosen[inside], width:]
    embedding = Embedding(
        user_ids=events.user_ids[inside].copy(),
        chooser=np.ascontiguousarray(chooser),
        chosen=np.ascontiguousarray(chosen),
        content_weights=from_profile.weights,
        content_intercept=from_profile.intercept,
        parameters=EmbeddingParameters(
            alpha=config.alpha,
            pass_confidence=config.pass_confidence,
            regularization=config.regularization,
            fit=config.model_dump(mode="json", exclude={"alpha", "pass_confidence", "regularization", "threads"}),
        ),
    )
    report = EmbeddingReport(
        people=int(inside.size),
        likes=int((matrix.data > 0).sum()),
        passes=int((matrix.data < 0).sum()),
        dimensions=width,
        fitted_as_chooser=int(chooses.sum()),
        fitted_as_chosen=int(is_chosen.sum()),
        content_r2=(from_profile.r2[0], from_profile.r2[1]),
    )
    return embedding, report


def _alternate(
    matrix: sparse.csr_matrix, dimensions: int, config: EmbeddingConfig, progress: Progress | None
) -> tuple[Floats, Floats]:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    def tell(iteration: int, seconds: float, _loss: float | None) -> None:
        if progress is not None:
            progress(iteration + 1, config.iterations, seconds)

    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=dimensions,
            regularization=config.regularization,
            alpha=1.0,  # the matrix holds confidences already
            iterations=config.iterations,
            num_threads=config.threads,
            random_state=np.random.default_rng(config.seed),
        )
        model.fit(matrix, show_progress=False, callback=tell)
        # The last half-step moved Q: solve P exactly against it, so that a fold-in at request time gives the same P.
        rows = np.flatnonzero(np.diff(matrix.indptr))
        chooser = np.zeros_like(model.user_factors)
        for part in np.array_split(rows, max(1, rows.size // 100_000)):
            chooser[part] = model.recalculate_user(part, matrix[part])
    chosen = np.where(np.bincount(matrix.indices, minlength=matrix.shape[1])[:, None] > 0, model.item_factors, 0)
    return chooser, chosen.astype(np.float32)


def _dimensions(config: EmbeddingConfig, n_people: int) -> int:
    """Lower the width on tiny sets: more dimensions than half the people can only memorise."""
    return max(2, min(config.dimensions, n_people // 2))


def _over(interactions: Events | pd.DataFrame, user_ids: npt.NDArray[np.int64]) -> Events:
    if isinstance(interactions, Events) and np.array_equal(interactions.user_ids, user_ids):
        return interactions
    if isinstance(interactions, Events):
        raise BadInputs("The interactions are numbered over other people than the content inputs describe.")
    return Events.from_frame(interactions, user_ids)
