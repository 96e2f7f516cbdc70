"""Factorise the decisions before an instant into two factors per person: P who chooses, Q who is chosen.

Alternating least squares of `implicit` on likes and passes starts it; then rounds that learn a linear map from profiles
to factors and pull every factor to what its profile predicts. Each factor is solved alone and BLAS runs on one thread,
so the same inputs and seed give the same bytes whatever the number of threads. Too few likes are refused.
"""

import time
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
from pipelines.retrieval.half_step import EXACT, half_step
from registry.models.embedding import Embedding, EmbeddingParameters

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, float], None]
"""Called after every round with its number from 1, their total, and its seconds."""
_ROUND_STEPS = 3
_KEPT_PEOPLE = 100_000


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
    chooser[~chooses], chosen[~is_chosen] = 0.0, 0.0
    inside = np.flatnonzero(chooses | is_chosen)
    # Over the people inside only: a fold-in at request time knows nobody else.
    fit = _Fit(
        matrix[inside][:, inside].tocsr(),
        (chooser[inside], chosen[inside]),
        (chooses[inside], is_chosen[inside]),
        _kept(content_inputs, inside),
        config,
    )
    for number in range(config.content_rounds):
        began = time.perf_counter()
        fit.round()
        if progress is not None:
            rounds = config.iterations + config.content_rounds
            progress(config.iterations + number + 1, rounds, time.perf_counter() - began)
    from_profile = fit.finish()
    chooser, chosen = fit.chooser, fit.chosen
    width = chooser.shape[1]
    embedding = Embedding(
        user_ids=events.user_ids[inside].copy(),
        chooser=chooser,
        chosen=chosen,
        content_weights=from_profile.weights,
        content_intercept=from_profile.intercept,
        parameters=EmbeddingParameters(
            alpha=config.alpha,
            pass_confidence=config.pass_confidence,
            regularization=config.regularization,
            content_prior=config.content_rounds > 0,
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


class _Fit:
    """Factors of the people inside while they are pulled to their profiles; arrays are aligned with them."""

    def __init__(
        self,
        matrix: sparse.csr_matrix,
        factors: tuple[Floats, Floats],
        fitted: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
        inputs: ContentInputs,
        config: EmbeddingConfig,
    ) -> None:
        self._rows, self._columns = matrix, matrix.T.tocsr()
        self.chooser, self.chosen = factors
        self._chooses, self._is_chosen = fitted
        self._inputs, self._config = inputs, config

    def round(self) -> None:
        """Learn the map, then move P and Q once each towards decisions and profile."""
        prior_chooser, prior_chosen = self._to_profiles(self._map())
        self.chooser = self._half(self._rows, self.chosen, prior_chooser, self.chooser, steps=_ROUND_STEPS)
        self.chooser[~self._chooses] = prior_chooser[~self._chooses]
        self.chosen = self._half(self._columns, self.chooser, prior_chosen, self.chosen, steps=_ROUND_STEPS)
        self.chosen[~self._is_chosen] = prior_chosen[~self._is_chosen]

    def finish(self) -> ContentMap:
        """Solve P against the final Q and prior, as a fold-in at request time would, and return the map."""
        learned = self._map()
        prior, _ = self._to_profiles(learned)
        self.chooser = self._half(self._rows, self.chosen, prior, self.chooser, steps=EXACT)
        self.chooser[~self._chooses] = prior[~self._chooses]
        return learned

    def _map(self) -> ContentMap:
        ridge = self._config.content_regularization
        return ContentMap.stacked(
            fit_content_map(self._inputs, self.chooser, self._chooses, ridge),
            fit_content_map(self._inputs, self.chosen, self._is_chosen, ridge),
        )

    def _to_profiles(self, learned: ContentMap) -> tuple[Floats, Floats]:
        """Return everybody's predicted P and Q; whoever has no decisions in a role takes the prediction."""
        predicted = learned.predict_all(self._inputs, len(self.chooser))
        prior_chooser, prior_chosen = (np.ascontiguousarray(half) for half in np.hsplit(predicted, 2))
        self.chooser[~self._chooses] = prior_chooser[~self._chooses]
        self.chosen[~self._is_chosen] = prior_chosen[~self._is_chosen]
        return prior_chooser, prior_chosen

    def _half(self, matrix: sparse.csr_matrix, others: Floats, prior: Floats, start: Floats, *, steps: int) -> Floats:
        return half_step(
            matrix,
            others,
            prior if self._config.content_rounds else np.zeros_like(prior),
            start,
            regularization=self._config.regularization,
            steps=steps,
            threads=self._config.threads,
        )


def _alternate(
    matrix: sparse.csr_matrix, dimensions: int, config: EmbeddingConfig, progress: Progress | None
) -> tuple[Floats, Floats]:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    def tell(iteration: int, seconds: float, _loss: float | None) -> None:
        if progress is not None:
            progress(iteration + 1, config.iterations + config.content_rounds, seconds)

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
    return model.user_factors, model.item_factors


def _kept(content_inputs: ContentInputs, inside: npt.NDArray[np.int64]) -> ContentInputs:
    """Return the inputs of the people inside, held in memory where that is little: every round asks for them."""
    if inside.size > _KEPT_PEOPLE:
        return lambda positions: content_inputs(inside[positions])
    held = content_inputs(inside)
    return lambda positions: held[positions]


def _dimensions(config: EmbeddingConfig, n_people: int) -> int:
    """Lower the width on tiny sets: more dimensions than half the people can only memorise."""
    return max(2, min(config.dimensions, n_people // 2))


def _over(interactions: Events | pd.DataFrame, user_ids: npt.NDArray[np.int64]) -> Events:
    if isinstance(interactions, Events) and np.array_equal(interactions.user_ids, user_ids):
        return interactions
    if isinstance(interactions, Events):
        raise BadInputs("The interactions are numbered over other people than the content inputs describe.")
    return Events.from_frame(interactions, user_ids)
