"""What likes in common say of pairs of people: neighbour scores that need nothing but the requester's own likes.

Four scores of a directed pair, each from the likes that the requester has made until this moment:

* `item_knn`: how similar the candidate is to those the requester liked, by who likes them both (BM25 weights).
* `user_knn`: how many of the people with a taste like the requester's like the candidate (cosine).
* `spectral`: two steps along the likes plus their smoothest part (GF-CF, Shen et al. 2021).
* `ease`: a linear autoencoder of likes (Steck 2019), on small catalogues only.

The matrices are fitted offline and mapped; a new like counts at the next request. Somebody without a like gets NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infra.compiled import compiled, compiled_freely, fixed
from infra.db.id_rows import IdRows
from registry.contracts import Manifest
from registry.errors import CorruptArtifact, InvalidVectors
from registry.models.arrays import Floats, Ids, npy_writer, read_npy
from registry.models.artifacts import FileWriter
from registry.models.like_odds import FILES, PROFILE_FILES, LikeOdds, PersonOdds
from registry.models.sparse_rows import NeighbourScores, Rows, SparseRows

ITEM_KNN: Final = "item_knn"
USER_KNN: Final = "user_knn"
SPECTRAL: Final = "spectral"
EASE: Final = "ease"
POPULAR: Final = "popular"
NEIGHBOUR_SOURCES: Final = (ITEM_KNN, USER_KNN, SPECTRAL, EASE, POPULAR)
_PREFIX: Final = "neighbours_"
_SPECTRAL_DEPTH: Final = 1_500
_MOST_LIKERS: Final = 400
_USER_NEIGHBOURS: Final = 80
_POPULAR_DEPTH: Final = 5_000


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Likes of everybody and the weights fitted on them; rows and columns are places in `user_ids` int64[n] ascending.

    `likes` are by the one who likes, `liked_by` by the one who is liked, the newest last. `spectral` float16[n, d] are
    right singular vectors of the normalised likes, `popularity` float32[n] likes received, the latest weighing most.
    `like_odds` are None where nobody ever passed.
    """

    user_ids: Ids
    likes: SparseRows
    liked_by: SparseRows
    item_knn: SparseRows
    two_steps: SparseRows
    ease: SparseRows | None
    spectral: NDArray[np.float16]
    popularity: Floats
    smooth_weight: float
    like_odds: LikeOdds | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the scores that this instance gives."""
        return tuple(name for name in NEIGHBOUR_SOURCES if name != EASE or self.ease is not None)

    @cached_property
    def _rows(self) -> IdRows:
        return IdRows.of(self.user_ids)

    def positions(self, user_ids: ArrayLike) -> Ids:
        """Return each person's row, int64[m], -1 for the unknown."""
        return self._rows.find(user_ids)

    @cached_property
    def degree(self) -> Floats:
        """Return how many likes each person received, float32[n]."""
        return np.diff(self.liked_by.start).astype(np.float32)

    @cached_property
    def most_popular(self) -> Ids:
        """Return the rows of the most popular people, the most popular first."""
        return np.lexsort((self.user_ids, -self.popularity))[:_POPULAR_DEPTH].astype(np.int64)

    def taste_of(
        self,
        user_id: int,
        liked_ids: ArrayLike,
        passed_ids: ArrayLike = (),
        profile: Callable[[], Floats] | None = None,
    ) -> "Taste":
        """Return what the decisions of one person say; `liked_ids` and `passed_ids` are all of them by now.

        `profile` returns their content inputs float32[c]; it is called for somebody without a row alone.
        """
        liked = self._known(liked_ids)
        own = int(self.positions([user_id])[0])
        odds = None
        if self.like_odds is not None and own >= 0:
            odds = self.like_odds.of_row(own)
        elif self.like_odds is not None and profile is not None:
            odds = self.like_odds.of_newcomer(profile(), liked, self._known(passed_ids))
        return Taste(self, own, liked, odds)

    def _known(self, user_ids: ArrayLike) -> Ids:
        rows = self.positions(np.asarray(user_ids, dtype=np.int64))
        return np.unique(rows[rows >= 0])

    def writers(self) -> dict[str, FileWriter]:
        """Return a writer for each file, by its name inside the artefact."""
        arrays: dict[str, NDArray[np.generic]] = {
            "user_ids": self.user_ids,
            "spectral": self.spectral,
            "popularity": self.popularity,
            "smooth_weight": np.array([self.smooth_weight], dtype=np.float32),
        }
        for name in ("likes", "liked_by", "item_knn", "two_steps", "ease"):
            matrix: SparseRows | None = getattr(self, name)
            if matrix is not None:
                arrays |= {
                    f"{name}_start": matrix.start,
                    f"{name}_column": matrix.column,
                    f"{name}_weight": matrix.weight,
                }
        if self.like_odds is not None:
            arrays |= self.like_odds.arrays()
        return {f"{_PREFIX}{name}.npy": npy_writer(array) for name, array in arrays.items()}

    @classmethod
    def load(cls, directory: Path, manifest: Manifest) -> Self | None:
        """Map what `writers` wrote; None where the artefact has no neighbours.

        Raises:
            CorruptArtifact: the files do not belong together.
        """
        if f"{_PREFIX}user_ids.npy" not in manifest.files:
            return None

        def read(name: str, dtype: type[np.generic], ndim: int) -> NDArray[np.generic]:
            return read_npy(directory / f"{_PREFIX}{name}.npy", dtype, ndim)

        def matrix(name: str) -> SparseRows:
            return SparseRows(
                read(f"{name}_start", np.int64, 1),  # type: ignore[arg-type]  # checked by `read_npy`
                read(f"{name}_column", np.int32, 1),  # type: ignore[arg-type]  # the same
                read(f"{name}_weight", np.float32, 1),  # type: ignore[arg-type]  # the same
            )

        odds = {
            name: read(name, np.float32, ndim)
            for name, ndim in {**FILES, **PROFILE_FILES}.items()
            if f"{_PREFIX}{name}.npy" in manifest.files
        }
        try:
            found = cls(
                user_ids=np.array(read("user_ids", np.int64, 1)),
                likes=matrix("likes"),
                liked_by=matrix("liked_by"),
                item_knn=matrix("item_knn"),
                two_steps=matrix("two_steps"),
                ease=matrix("ease") if f"{_PREFIX}ease_start.npy" in manifest.files else None,
                spectral=read("spectral", np.float16, 2),  # type: ignore[arg-type]  # checked by `read_npy`
                popularity=read("popularity", np.float32, 1),  # type: ignore[arg-type]  # the same
                smooth_weight=float(read("smooth_weight", np.float32, 1)[0]),
                like_odds=LikeOdds.of(odds) if odds else None,
            )
        except InvalidVectors as error:
            raise CorruptArtifact(f"`{directory}` holds neighbours that do not belong together: {error}") from error
        if wrong := found.check():
            raise CorruptArtifact(f"`{directory}`: {wrong}.")
        return found

    def check(self) -> str | None:
        """Return what is wrong with the numbers, or None; a column out of bounds would be read beyond its array."""
        n = len(self)
        for name in ("likes", "liked_by", "item_knn", "two_steps", "ease"):
            matrix: SparseRows | None = getattr(self, name)
            if matrix is None:
                continue
            if len(matrix.start) != n + 1 or np.any(np.diff(matrix.start) < 0):
                return f"the neighbours' `{name}` has not one row for each of {n} people"
            if len(matrix.column) and not 0 <= int(matrix.column.min()) <= int(matrix.column.max()) < n:
                return f"the neighbours' `{name}` names people beyond the {n} there are"
            if not np.isfinite(matrix.weight).all():
                return f"the neighbours' `{name}` holds NaN or infinite weights"
        if self.spectral.shape[0] != n or self.popularity.shape != (n,):
            return f"the neighbours' spectral vectors or popularity are not those of {n} people"
        if not np.isfinite(self.spectral).all() or not np.isfinite(self.popularity).all():
            return "the neighbours hold NaN or infinite values"
        return None if self.like_odds is None else self.like_odds.check(n)

    def warm(self) -> None:
        """Compute what the first request would otherwise wait for."""
        _ = self.degree, self.most_popular
        if len(self):
            taste = self.taste_of(int(self.user_ids[0]), self.user_ids[:2])
            for source in self.sources:
                taste.best(source, 1)
            taste.scores(np.zeros(1, dtype=np.int64))
            taste.liked_back(np.zeros(1, dtype=np.int64))
            if self.like_odds is not None:
                self.like_odds.between(taste.odds, np.zeros(1, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Taste:
    """What the decisions of the person at row `own` (-1: unknown) say; `liked` int64[k] are rows of those they like.

    `odds` are their factors of the odds of a like, as far as there are any.
    """

    neighbours: Neighbours
    own: int
    liked: Ids
    odds: PersonOdds | None = None

    @cached_property
    def _item_knn(self) -> NeighbourScores:
        return self.neighbours.item_knn.spread(self.liked, np.ones(len(self.liked), dtype=np.float32))

    @cached_property
    def _two_steps(self) -> NeighbourScores:
        return self.neighbours.two_steps.spread(self.liked, np.ones(len(self.liked), dtype=np.float32))

    @cached_property
    def _ease(self) -> NeighbourScores | None:
        ease = self.neighbours.ease
        return None if ease is None else ease.spread(self.liked, np.ones(len(self.liked), dtype=np.float32))

    @cached_property
    def _user_knn(self) -> NeighbourScores:
        n = self.neighbours
        scores, met = _of_similar_users(
            fixed(n.likes.start), fixed(n.likes.column), fixed(n.liked_by.start), fixed(n.liked_by.column),
            self.liked, self.own, _MOST_LIKERS, _USER_NEIGHBOURS,
        )  # fmt: skip
        return NeighbourScores(scores, met)

    @cached_property
    def _smooth_query(self) -> Floats:
        n = self.neighbours
        if not len(self.liked):
            return np.zeros(n.spectral.shape[1], dtype=np.float32)
        scale = 1.0 / np.sqrt(np.maximum(n.degree[self.liked], 1.0))
        return np.asarray(scale @ n.spectral[self.liked].astype(np.float32), dtype=np.float32)

    def _smooth(self, rows: Ids) -> Floats:
        """Return the low-pass part of the spectral score, float32[m]."""
        n = self.neighbours
        found = _dots(fixed(n.spectral.view(np.uint16)), rows, self._smooth_query)
        return np.asarray(found * np.sqrt(n.degree[rows]), dtype=np.float32)

    def _spectral(self, rows: Ids) -> Floats:
        found = self._two_steps.scores[rows]
        if self.neighbours.smooth_weight:
            found = found + np.float32(self.neighbours.smooth_weight) * self._smooth(rows)
        return np.asarray(found, dtype=np.float32)

    def best(self, source: str, n: int) -> tuple[Ids, Floats]:
        """Return the rows int64[<=n] and scores of the people whom a source names first, whoever they are."""
        if source == POPULAR:
            rows = self.neighbours.most_popular[:n]
            return rows, self.neighbours.popularity[rows]
        if not len(self.liked):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if source == SPECTRAL:
            rows = self._two_steps.best(max(n, _SPECTRAL_DEPTH))
            scores = self._spectral(rows)
            order = np.lexsort((rows, -scores))[:n]
            return rows[order], scores[order]
        spread = {ITEM_KNN: self._item_knn, USER_KNN: self._user_knn, EASE: self._ease}[source]
        if spread is None:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        rows = spread.best(n)
        return rows, spread.scores[rows]

    def scores(self, rows: Ids) -> dict[str, Floats]:
        """Return each source's score of the people at `rows`, float32[m]; NaN for a row of -1 and without any like."""
        known = rows >= 0
        safe = np.where(known, rows, 0)
        found = {POPULAR: self.neighbours.popularity[safe] if len(self.neighbours) else np.zeros(len(rows), np.float32)}
        if len(self.liked):
            found |= {
                ITEM_KNN: self._item_knn.scores[safe],
                USER_KNN: self._user_knn.scores[safe],
                SPECTRAL: self._spectral(safe),
            }
            if self._ease is not None:
                found[EASE] = self._ease.scores[safe]
        nothing = np.full(len(rows), np.nan, dtype=np.float32)
        return {
            name: np.where(known, found[name], np.float32(np.nan)) if name in found else nothing
            for name in NEIGHBOUR_SOURCES
        }

    def liked_back(self, rows: Ids) -> Floats:
        """Return how similar this person is to those whom the people at `rows` like (item k-NN), float32[m]."""
        n = self.neighbours
        if self.own < 0 or not len(n):
            return np.full(len(rows), np.nan, dtype=np.float32)
        scores = n.item_knn.spread(np.array([self.own]), np.ones(1, dtype=np.float32)).scores
        return _sums(fixed(n.likes.start), fixed(n.likes.column), scores, rows)


@compiled_freely
def _dots(halves: NDArray[np.uint16], rows: Ids, query: Floats) -> Floats:
    """Return the product of each row of float16 numbers, given by their bits, with a query, float32[m].

    numpy turns float16 into float32 one number at a time, which took a tenth of an answer. Exponent and mantissa fall
    into their places in a float32 by a shift; its exponents begin 112 lower.
    """
    out = np.empty(len(rows), dtype=np.float32)
    rebased = np.float32(2.0**112)
    for i in range(len(rows)):
        total = np.float32(0.0)
        for k in range(len(query)):
            bits = np.uint32(halves[rows[i], k])
            size, sign = (bits & np.uint32(0x7FFF)) << np.uint32(13), (bits & np.uint32(0x8000)) << np.uint32(16)
            total += np.uint32(size | sign).view(np.float32) * query[k]
        out[i] = total * rebased
    return out


@compiled
def _of_similar_users(
    likes_start: Ids, likes: Rows, liked_by_start: Ids, liked_by: Rows, liked: Ids, own: int, most: int, k: int
) -> tuple[Floats, Ids]:
    """Return the dense user k-NN scores of one person and the columns met.

    The similarity is the cosine of like sets; of those who like somebody, the latest `most` are looked at.
    """
    n = len(likes_start) - 1
    common = np.zeros(n, dtype=np.float32)
    users = np.empty(min(n, len(liked) * most), dtype=np.int64)
    count = 0
    for row in liked:
        first, last = liked_by_start[row], liked_by_start[row + 1]
        first = max(first, last - most)
        for at in range(first, last):
            user = liked_by[at]
            if user == own:
                continue
            if common[user] == 0.0:
                users[count] = user
                count += 1
            common[user] += np.float32(1.0)
    users = users[:count]
    similarity = np.empty(count, dtype=np.float32)
    for i in range(count):
        user = users[i]
        size = likes_start[user + 1] - likes_start[user]
        similarity[i] = common[user] / np.sqrt(np.float32(size * max(len(liked), 1)))
    scores = np.zeros(n, dtype=np.float32)
    seen = np.zeros(n, dtype=np.bool_)
    order = np.argsort(-similarity)[:k]
    total = 0
    for i in order:
        total += likes_start[users[i] + 1] - likes_start[users[i]]
    met = np.empty(min(n, total), dtype=np.int64)
    found = 0
    for i in order:
        user = users[i]
        for at in range(likes_start[user], likes_start[user + 1]):
            other = likes[at]
            scores[other] += similarity[i]
            if not seen[other]:
                seen[other] = True
                met[found] = other
                found += 1
    return scores, met[:found]


@compiled
def _sums(start: Ids, column: Rows, values: Floats, rows: Ids) -> Floats:
    """Return the sum of `values` over the columns of each row, float32[m]; NaN for a row of -1."""
    out = np.empty(len(rows), dtype=np.float32)
    for i in range(len(rows)):
        if rows[i] < 0:
            out[i] = np.nan
            continue
        total = np.float32(0.0)
        for at in range(start[rows[i]], start[rows[i] + 1]):
            total += values[column[at]]
        out[i] = total
    return out
