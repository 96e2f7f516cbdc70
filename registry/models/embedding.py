"""The embedding artefact: each person's two factors, P as the one who chooses and Q as the one who is chosen.

People unknown to the factorisation get factors from their profile by a linear map; people with fresh decisions get a
fold-in, the same half-step that trained everybody else. Factors are compared by inner product, never by cosine, except
in `similarity_to_liked`, which is a feature and not a retrieval score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from infra.compiled import fixed
from infra.db.id_rows import IdRows
from registry.contracts import ArtifactKind, Manifest
from registry.errors import CorruptArtifact, InvalidVectors
from registry.models.arrays import Floats, Ids, npy_writer, npz_writer, read_npy, read_npz
from registry.models.artifacts import verify_artifact, write_artifact
from registry.models.folding import normal_equations
from registry.models.pairs import nearest_of_liked, nearest_to_liked, row_dot, scores_of

_USER_IDS: Final = "user_ids.npy"
_CHOOSER: Final = "chooser.npy"
_CHOSEN: Final = "chosen.npy"
_CONTENT: Final = "content.npz"
_MAX_MAGNITUDE: Final = 1e12


class EmbeddingParameters(BaseModel):
    """How the factors were fitted, as far as a fold-in must know it; `fit` holds whatever else is worth keeping.

    Confidences follow `implicit`: a like counts as preference 1 with confidence `alpha`, a pass as preference 0 with
    confidence `pass_confidence`, everybody else as preference 0 with confidence 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(default=40.0, gt=0, le=1e6, description="confidence of a like")
    pass_confidence: float = Field(default=5.0, ge=1, le=1e6, description="confidence of a pass")
    regularization: float = Field(default=10.0, ge=0, le=1e6, description="L2 penalty of a factor")
    content_prior: bool = Field(default=False, description="the penalty pulls to the profile's factor, not to zero")
    fit: dict[str, JsonValue] = Field(default_factory=dict, description="other settings of the fit")


@dataclass(frozen=True)
class Embedding:
    """Factors of everybody the factorisation saw, and a linear map from profiles for everybody else.

    `user_ids` int64[n] strictly ascending; `chooser` P and `chosen` Q float32[n, d]; `content_weights`
    float32[c, 2d] and `content_intercept` float32[2d] give `[P, Q]` of a person from float32[c] content inputs.
    """

    user_ids: Ids
    chooser: Floats
    chosen: Floats
    content_weights: Floats
    content_intercept: Floats
    parameters: EmbeddingParameters = field(default_factory=EmbeddingParameters)

    def __post_init__(self) -> None:
        n, d = self.chooser.shape if self.chooser.ndim == 2 else (-1, 0)
        aligned = (
            n >= 0
            and d > 0
            and self.user_ids.shape == (n,)
            and self.chosen.shape == (n, d)
            and self.content_weights.ndim == 2
            and self.content_weights.shape[1] == 2 * d
            and self.content_intercept.shape == (2 * d,)
        )
        if not aligned:
            raise InvalidVectors(
                f"The factors do not align: {self.user_ids.shape} ids, chooser {self.chooser.shape}, chosen "
                f"{self.chosen.shape}, content map {self.content_weights.shape} + {self.content_intercept.shape}."
            )
        if n and (np.any(np.diff(self.user_ids) <= 0) or int(self.user_ids[0]) <= 0):
            raise InvalidVectors("The ids of an embedding must be positive and strictly ascending.")

    @property
    def dimensions(self) -> int:
        """Return d, the length of one factor."""
        return int(self.chooser.shape[1])

    def __len__(self) -> int:
        return len(self.user_ids)

    def positions(self, user_ids: ArrayLike) -> NDArray[np.int64]:
        """Return each person's row, int64[n], -1 for the unknown."""
        return self._rows.find(user_ids)

    @cached_property
    def _rows(self) -> IdRows:
        return IdRows.of(self.user_ids)

    def known(self, user_ids: ArrayLike) -> NDArray[np.bool_]:
        """Say who took part in the factorisation, bool[n]."""
        return np.asarray(self.positions(user_ids) >= 0)

    def content_factors(self, content_inputs: Floats) -> tuple[Floats, Floats]:
        """Predict (P, Q), float32[n, d] each, from float32[n, c] content inputs; raise InvalidVectors unless finite."""
        inputs = np.atleast_2d(np.asarray(content_inputs, dtype=np.float32))
        if inputs.shape[1] != self.content_weights.shape[0]:
            raise InvalidVectors(
                f"The content inputs have {inputs.shape[1]} columns, this embedding was fitted on "
                f"{self.content_weights.shape[0]}."
            )
        both = (inputs @ self.content_weights + self.content_intercept).astype(np.float32)
        if not np.isfinite(both).all():
            raise InvalidVectors("The content inputs are not finite, so no factor can be predicted from them.")
        return both[:, : self.dimensions], both[:, self.dimensions :]

    def vectors(self, user_ids: ArrayLike, content_inputs: Floats | None = None) -> tuple[Floats, Floats]:
        """Return (P, Q), float32[n, d] each: fitted where known, from the profile where not.

        `content_inputs` float32[n, c] aligns with `user_ids`; without it unknown people get zeros.
        """
        rows = self.positions(np.atleast_1d(np.asarray(user_ids, dtype=np.int64)))
        unknown = rows < 0
        chooser = np.zeros((len(rows), self.dimensions), dtype=np.float32)
        chosen = np.zeros_like(chooser)
        chooser[~unknown] = self.chooser[rows[~unknown]]
        chosen[~unknown] = self.chosen[rows[~unknown]]
        if content_inputs is not None and unknown.any():
            chooser[unknown], chosen[unknown] = self.content_factors(np.atleast_2d(content_inputs)[unknown])
        return chooser, chosen

    def scores_with(self, p: Floats, q: Floats, rows: Ids, unknown: Floats) -> tuple[Floats, Floats, Floats]:
        """Return s(u->v), s(v->u) float32[n] and Q_v float32[n, d] of a person, `p` and `q`, with those at `rows`.

        `unknown` float32[m, c] holds the content inputs of those whose row is -1, in their order.
        """
        chooser, chosen = map(np.ascontiguousarray, self.content_factors(unknown) if len(unknown) else self._nobody)
        return scores_of(fixed(self.chooser), fixed(self.chosen), rows, chooser, chosen, p, q)

    def nearest_liked(self, liked: Ids, chosen: Floats, last: int, but: int) -> Floats:
        """Return the highest cosine of `chosen` float32[d] to Q of the first `last` that each person liked, float32[n].

        `liked` int64[n, w] ids, latest first, -1 where there are fewer; a like of `but` does not count, NaN without.
        """
        return nearest_of_liked(fixed(self.chosen), self.positions(liked), liked, chosen, last, but)

    @cached_property
    def _nobody(self) -> tuple[Floats, Floats]:
        return np.empty((0, self.dimensions), np.float32), np.empty((0, self.dimensions), np.float32)

    def fold_in_chooser(
        self, liked_ids: ArrayLike, passed_ids: ArrayLike = (), *, prior: Floats | None = None
    ) -> Floats:
        """Return P float32[d] of a person who liked and passed these people, with everybody's Q held fixed.

        Unknown people are left out. `prior` is what the penalty pulls towards (zeros unless given): the factor from
        the profile, so that the first swipes correct it instead of replacing it.
        """
        return self._fold_in(self.chosen, self._chosen_gram, liked_ids, passed_ids, prior)

    def fold_in_chosen(
        self, liked_by_ids: ArrayLike, passed_by_ids: ArrayLike = (), *, prior: Floats | None = None
    ) -> Floats:
        """Return Q float32[d] of a person whom these people liked and passed, with everybody's P held fixed."""
        return self._fold_in(self.chooser, self._chooser_gram, liked_by_ids, passed_by_ids, prior)

    def _fold_in(
        self,
        factors: Floats,
        gram: NDArray[np.float64],
        liked_ids: ArrayLike,
        passed_ids: ArrayLike,
        prior: Floats | None,
    ) -> Floats:
        ours = self.parameters
        pull = np.zeros(self.dimensions) if prior is None else ours.regularization * np.asarray(prior, dtype=np.float64)
        left, right = normal_equations(
            fixed(factors), self.positions(liked_ids), self.positions(passed_ids), gram, pull, ours.alpha,
            ours.pass_confidence, max(ours.regularization, 1e-9),
        )  # fmt: skip
        return np.linalg.solve(left, right).astype(np.float32)

    @cached_property
    def _chosen_gram(self) -> NDArray[np.float64]:
        return _gram(self.chosen)

    @cached_property
    def _chooser_gram(self) -> NDArray[np.float64]:
        return _gram(self.chooser)

    @property
    def addresses(self) -> list[int]:
        """Return where the factors lie in memory."""
        return [self.chooser.ctypes.data, self.chosen.ctypes.data]

    def warm(self) -> None:
        """Compute what the first request would otherwise wait for."""
        _ = self._chosen_gram, self._chooser_gram, self.known([1])

    def check_factors(self) -> str | None:
        """Return what is wrong with the numbers, or None; the Gram matrices carry every NaN, infinity and outlier."""
        for name, gram in (("chooser", self._chooser_gram), ("chosen", self._chosen_gram)):
            squares = np.diagonal(gram)
            if not np.isfinite(squares).all():
                return f"`{name}` holds NaN or infinite values"
            if squares.max() > _MAX_MAGNITUDE**2:
                return f"`{name}` holds absurdly large values"
            if len(self) and not squares.any():
                return f"`{name}` holds nothing but zeros"
        if not np.isfinite(self.content_weights).all() or not np.isfinite(self.content_intercept).all():
            return "the map from profiles holds NaN or infinite values"
        return None

    def save(self, directory: Path, lineage: Mapping[str, str], metrics: Mapping[str, float] | None = None) -> Manifest:
        """Write the artefact; raise InvalidVectors if any number is not finite."""
        for name in ("chooser", "chosen", "content_weights", "content_intercept"):
            if not np.isfinite(getattr(self, name)).all():
                raise InvalidVectors(f"`{name}` holds NaN or infinite values: lower alpha or raise regularization.")
        return write_artifact(
            directory,
            ArtifactKind.EMBEDDING,
            {
                _USER_IDS: npy_writer(self.user_ids.astype(np.int64)),
                _CHOOSER: npy_writer(self.chooser.astype(np.float32)),
                _CHOSEN: npy_writer(self.chosen.astype(np.float32)),
                _CONTENT: npz_writer(
                    {
                        "weights": self.content_weights.astype(np.float32),
                        "intercept": self.content_intercept.astype(np.float32),
                    }
                ),
            },
            parameters={
                **self.parameters.model_dump(mode="json"),
                "dimensions": self.dimensions,
                "people": len(self),
            },
            metrics=metrics,
            lineage=lineage,
        )

    @classmethod
    def load(cls, directory: Path, expected_digest: str | None = None, *, verified: Manifest | None = None) -> Self:
        """Verify the artefact (unless `verified` says it just was) and map its factors."""
        manifest = verified or verify_artifact(directory, expected_digest)
        manifest.expect(ArtifactKind.EMBEDDING)
        content = read_npz(directory / _CONTENT, {"weights": (np.float32, 2), "intercept": (np.float32, 1)})
        known = {
            name: manifest.parameters[name] for name in EmbeddingParameters.model_fields if name in manifest.parameters
        }
        try:
            return cls(
                user_ids=np.array(read_npy(directory / _USER_IDS, np.int64, 1)),
                chooser=read_npy(directory / _CHOOSER, np.float32, 2),
                chosen=read_npy(directory / _CHOSEN, np.float32, 2),
                content_weights=content["weights"],
                content_intercept=content["intercept"],
                parameters=EmbeddingParameters.model_validate(known),
            )
        except ValueError as error:
            raise CorruptArtifact(f"`{directory}` has parameters outside their bounds: {error}.") from error


def _gram(factors: Floats) -> NDArray[np.float64]:
    d = factors.shape[1]
    total = np.zeros((d, d), dtype=np.float64)
    for start in range(0, len(factors), 65_536):
        part = np.asarray(factors[start : start + 65_536], dtype=np.float64)
        total += part.T @ part
    return total


def item_vectors(chooser: Floats, chosen: Floats) -> Floats:
    """Return what the index holds of each person: `[Q ; P]`, float32[n, 2d]."""
    return np.ascontiguousarray(np.concatenate([chosen, chooser], axis=1), dtype=np.float32)


def query_vectors(chooser: Floats, chosen: Floats, weight: float) -> Floats:
    """Return what the index is asked: `[w*P ; (1-w)*Q]`, float32[n, 2d]; weight 1 is one-sided, 0.5 is even."""
    if not 0.0 <= weight <= 1.0:
        raise InvalidVectors(f"The weight of the requester's side is {weight}, it must lie in 0..1.")
    return np.ascontiguousarray(np.concatenate([weight * chooser, (1.0 - weight) * chosen], axis=1), dtype=np.float32)


def pair_scores(chooser_u: Floats, chosen_u: Floats, chooser_v: Floats, chosen_v: Floats) -> tuple[Floats, Floats]:
    """Return (s(u->v), s(v->u)), float32[n] each, of aligned rows; one row of either side is broadcast."""
    return row_dot(chooser_u, chosen_v), row_dot(chooser_v, chosen_u)


def similarity_to_liked(chosen_liked: Floats, chosen: Floats) -> Floats:
    """Return the highest cosine of each Q_v, float32[n], to any Q already liked; NaN where nobody is liked yet."""
    return nearest_to_liked(np.ascontiguousarray(chosen_liked), np.ascontiguousarray(chosen))
