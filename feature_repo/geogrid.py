"""Who is near: people sorted by gender and grid cell, so that an area is a few ranges of one array.

One sort at the start; a query costs two binary searches per grid row and gender, whatever the number of people.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import N_GENDERS

CELL_DEGREES = 0.25
N_ROWS = int(180 / CELL_DEGREES)
N_COLUMNS = int(360 / CELL_DEGREES)
N_CELLS = N_ROWS * N_COLUMNS
NOWHERE = N_CELLS  # the cell of people without a home
GROUP = N_CELLS + 1
KM_PER_DEGREE = 111.195
RINGS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, N_ROWS)

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranges:
    """Half-open ranges of places in the sorted order."""

    low: Int64
    high: Int64

    @property
    def total(self) -> int:
        """Return how many people the ranges hold."""
        return int((self.high - self.low).sum())

    def also(self, other: "Ranges") -> "Ranges":
        """Return these ranges and those of `other`."""
        if not other.total:
            return self
        return Ranges(np.concatenate([self.low, other.low]), np.concatenate([self.high, other.high]))

    def places(self, offsets: Int64) -> Int64:
        """Return the places of the `offsets`-th people, counted through all ranges."""
        ends = np.cumsum(self.high - self.low)
        which = np.searchsorted(ends, offsets, side="right")
        return np.asarray(self.high[which] - (ends[which] - offsets), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class GeoGrid:
    """Positions of people ordered by (gender, cell), and the sorted keys themselves."""

    order: NDArray[np.int32]
    keys: Int64

    @classmethod
    def build(cls, gender: Float64, latitude: Float64, longitude: Float64) -> Self:
        """Sort n people given as float64[n] columns; NaN coordinates mean no home."""
        keys = _genders(gender) * GROUP + cells(latitude, longitude)
        order = np.argsort(keys, kind="stable").astype(np.int32)
        return cls(order, keys[order])

    def save(self, directory: Path) -> None:
        """Write one `.npy` file per array into `directory`, which must exist."""
        np.save(directory / _FILES[0], self.order, allow_pickle=False)
        np.save(directory / _FILES[1], self.keys, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, *, mapped: bool = True) -> Self:
        """Read what `save` wrote; `mapped` shares the pages between processes that open the same files."""
        mode: Literal["r"] | None = "r" if mapped else None
        return cls(*(np.asarray(np.load(directory / name, mmap_mode=mode, allow_pickle=False)) for name in _FILES))

    def everybody(self, genders: Sequence[int]) -> Ranges:
        """Return everybody of the genders."""
        first = np.array(genders, dtype=np.int64) * GROUP
        return self._between(first, first + GROUP)

    def nowhere(self, genders: Sequence[int]) -> Ranges:
        """Return the people of the genders who have no home."""
        first = np.array(genders, dtype=np.int64) * GROUP + NOWHERE
        return self._between(first, first + 1)

    def areas(
        self, genders: Sequence[int], latitude: float, longitude: float, limit_km: float
    ) -> Iterator[tuple[Ranges, bool]]:
        """Yield growing areas around a home and whether each is the last, which covers `limit_km` (NaN: the world)."""
        groups = np.array(genders, dtype=np.int64) * GROUP
        limit_cells = N_ROWS if np.isnan(limit_km) else int(np.ceil(limit_km / KM_PER_DEGREE / CELL_DEGREES)) + 1
        for ring in RINGS:
            reach = min(ring, limit_cells)
            yield self._box(groups, latitude, longitude, reach), reach >= limit_cells
            if reach >= limit_cells:
                return

    def _box(self, groups: Int64, latitude: float, longitude: float, reach: int) -> Ranges:
        row = min(max(math.floor((latitude + 90.0) / CELL_DEGREES), 0), N_ROWS - 1)
        column = math.floor((longitude + 180.0) / CELL_DEGREES) % N_COLUMNS
        south, north = max(row - reach, 0), min(row + reach, N_ROWS - 1)
        # A degree of longitude shrinks towards the poles: widen by the row that lies farthest from the equator.
        farthest = min(max(90.0 - south * CELL_DEGREES, (north + 1) * CELL_DEGREES - 90.0), 89.9)
        width = math.ceil(reach / math.cos(math.radians(farthest))) if reach else 0
        if 2 * width + 1 >= N_COLUMNS:
            spans = [(0, N_COLUMNS)]
        else:
            west, east = column - width, column + width + 1
            spans = [(max(west, 0), min(east, N_COLUMNS))]
            if west < 0:
                spans.append((west + N_COLUMNS, N_COLUMNS))
            if east > N_COLUMNS:
                spans.append((0, east - N_COLUMNS))
        starts = (groups[:, None] + np.arange(south, north + 1) * N_COLUMNS).ravel()
        edges = np.concatenate([starts + edge for span in spans for edge in span])
        found = np.searchsorted(self.keys, edges).reshape(len(spans), 2, -1)
        return Ranges(found[:, 0].ravel(), found[:, 1].ravel())

    def _between(self, first: Int64, last: Int64) -> Ranges:
        return Ranges(np.searchsorted(self.keys, first), np.searchsorted(self.keys, last))


def cells(latitude: Float64, longitude: Float64) -> Int64:
    """Return int64[n] grid cells, NOWHERE for people without a home."""
    known = ~(np.isnan(latitude) | np.isnan(longitude))
    rows = _rows(np.where(known, latitude, 0.0))
    columns = _columns(np.where(known, longitude, 0.0))
    return np.where(known, rows * N_COLUMNS + columns, NOWHERE)


def _rows(latitude: Float64) -> Int64:
    return np.clip(np.floor((latitude + 90.0) / CELL_DEGREES), 0, N_ROWS - 1).astype(np.int64)


def _columns(longitude: Float64) -> Int64:
    return (np.floor((longitude + 180.0) / CELL_DEGREES) % N_COLUMNS).astype(np.int64)


def _genders(gender: Float64) -> Int64:
    return np.clip(np.where(gender > 0, gender, 0.0), 0, N_GENDERS - 1).astype(np.int64)


_FILES = ("grid_order.npy", "grid_keys.npy")
