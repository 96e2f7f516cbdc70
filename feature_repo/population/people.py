"""People as columns: the packed feature rows of many people, side by side and sorted by id.

Training, evaluation and serving all hold people in this one shape. Instances never change; `upsert` and
`take` give new ones. Rows that do not fit their layout, or ids out of order, are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ACTIVITY, ATTRIBUTES, PROFILE, RECIPROCITY, VIEWS, Layout
from infra.db.id_rows import IdRows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class People:
    """Packed features of n people: `user_ids` int64[n] and one float32[n, width] per view.

    Ids ascend strictly, except after `take`, whose order is the caller's: such people cannot be looked up.
    """

    user_ids: Int64
    profile: Float32
    attributes: Float32
    activity: Float32
    reciprocity: Float32

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        if self.user_ids.ndim != 1 or self.user_ids.dtype != np.int64:
            raise MalformedFeatures("user_ids must be a one-dimensional int64 array.")
        for layout, rows in zip(VIEWS, self.views, strict=True):
            if rows.shape != (len(self), layout.width) or rows.dtype != np.float32:
                raise MalformedFeatures(
                    f"The rows of {layout.name} must be float32[{len(self)}, {layout.width}], "
                    f"but are {rows.dtype}{list(rows.shape)}."
                )

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def views(self) -> tuple[Float32, Float32, Float32, Float32]:
        """Return the rows of the four views in the order of `layout.VIEWS`."""
        return self.profile, self.attributes, self.activity, self.reciprocity

    @classmethod
    def build(
        cls,
        user_ids: ArrayLike,
        profile: Float32 | None = None,
        attributes: Float32 | None = None,
        activity: Float32 | None = None,
        reciprocity: Float32 | None = None,
    ) -> Self:
        """Make people from ids in any order; a view left out gets default rows. Raises on duplicate ids."""
        ids = np.asarray(user_ids, dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        if len(ids) > 1 and not np.all(np.diff(ids[order]) > 0):
            raise MalformedFeatures("The same user_id occurs twice: give each person once.")
        sorted_already = bool(np.all(order == np.arange(len(ids))))

        def arranged(layout: Layout, rows: Float32 | None) -> Float32:
            if rows is None:
                return layout.default_rows(len(ids))
            packed = np.ascontiguousarray(rows, dtype=np.float32)
            return packed if sorted_already else packed[order]

        return cls(
            ids if sorted_already else ids[order],
            arranged(PROFILE, profile),
            arranged(ATTRIBUTES, attributes),
            arranged(ACTIVITY, activity),
            arranged(RECIPROCITY, reciprocity),
        )

    @classmethod
    def empty(cls) -> Self:
        """Return nobody."""
        return cls.build(np.empty(0, np.int64))

    @classmethod
    def concat(cls, parts: Sequence["People"]) -> Self:
        """Return all people of `parts`, sorted by id; raises when somebody is in two of them."""
        if not parts:
            return cls.empty()
        return cls.build(
            np.concatenate([part.user_ids for part in parts]),
            *(np.concatenate(columns) for columns in zip(*(part.views for part in parts), strict=True)),
        )

    def positions(self, user_ids: ArrayLike) -> Int64:
        """Return int64[m]: where each id stands, -1 for unknown people; raises when ids do not ascend."""
        if not self.is_ascending:
            raise MalformedFeatures("People gathered out of order cannot be looked up by id.")
        return self._rows.find(user_ids)

    @cached_property
    def _rows(self) -> IdRows:
        return IdRows.of(self.user_ids)

    def take(self, positions: ArrayLike) -> Self:
        """Gather people in the given order, repeats allowed; positions must be >= 0."""
        at = np.asarray(positions, dtype=np.int64)
        if len(at) and int(at.min()) < 0:
            raise MalformedFeatures("An unknown person (position -1) has no features: drop such ids first.")
        return type(self)(self.user_ids[at], *(rows[at] for rows in self.views))

    def upsert(self, other: "People") -> Self:
        """Return these people with `other` added; where both know somebody, `other` wins."""
        if not len(other):
            return self
        kept = self.take(np.flatnonzero(other.positions(self.user_ids) < 0))
        return type(self).concat([kept, other])

    def without(self, user_ids: ArrayLike) -> Self:
        """Return these people except `user_ids`; ids nobody has are ignored."""
        gone = np.isin(self.user_ids, np.asarray(user_ids, dtype=np.int64))
        return self.take(np.flatnonzero(~gone))

    @cached_property
    def is_ascending(self) -> bool:
        """Return whether ids ascend strictly, so that people can be found by id."""
        return bool(np.all(self.user_ids[1:] > self.user_ids[:-1]))

    @property
    def nbytes(self) -> int:
        """Return the bytes of all columns."""
        return self.user_ids.nbytes + sum(rows.nbytes for rows in self.views)

    def save(self, directory: Path) -> None:
        """Write one `.npy` file per column block into `directory`, which must exist."""
        np.save(directory / _FILES[0], self.user_ids, allow_pickle=False)
        for name, rows in zip(_FILES[1:], self.views, strict=True):
            np.save(directory / name, rows, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, *, mapped: bool = True) -> Self:
        """Read what `save` wrote; `mapped` shares the pages between processes that open the same files."""
        mode: Literal["r"] | None = "r" if mapped else None
        # A plain view of the map: slicing np.memmap itself costs microseconds per slice.
        return cls(*(np.asarray(np.load(directory / name, mmap_mode=mode, allow_pickle=False)) for name in _FILES))


_FILES = ("user_ids.npy", *(f"{layout.name}.npy" for layout in VIEWS))
