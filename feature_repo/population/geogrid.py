"""Who is near: people sorted by gender and grid cell, so that an area is a few ranges of one array.

One sort at the start; an area costs two binary searches per grid row and gender, whatever the number of people. Whom to
look at is drawn with a stride: everybody has the same chance, and the strides one after the other meet everybody once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import N_GENDERS
from infra.compiled import compiled, fixed

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
class Area:
    """Half-open ranges of places in the sorted order, the people in them, and whether nobody else is in reach."""

    low: Int64
    high: Int64
    total: int
    is_whole: bool


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
        return cls(fixed(order), fixed(keys[order]))

    def save(self, directory: Path) -> None:
        """Write one `.npy` file per array into `directory`, which must exist."""
        np.save(directory / _FILES[0], self.order, allow_pickle=False)
        np.save(directory / _FILES[1], self.keys, allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, *, mapped: bool = True) -> Self:
        """Read what `save` wrote; `mapped` shares the pages between processes that open the same files."""
        mode: Literal["r"] | None = "r" if mapped else None
        return cls(*(fixed(np.load(directory / name, mmap_mode=mode, allow_pickle=False)) for name in _FILES))

    def around(self, genders: Sequence[int], latitude: float, longitude: float, limit_km: float, wanted: float) -> Area:
        """Return the smallest area around a home that holds `wanted` people, or else the one that covers `limit_km`.

        Without a limit (NaN) that is the world, and so is the area around nowhere. Who has no home is in every area.
        """
        return Area(*_area(self.keys, np.array(genders, dtype=np.int64), latitude, longitude, limit_km, wanted))

    def drawn(self, area: Area, alive: NDArray[np.bool_], first: int, stride: int) -> Int64:
        """Return the positions int64[m] of every `stride`-th person of an area, from the `first` on, who is alive."""
        return _every(self.order, fixed(alive), area.low, area.high, first, stride)


@compiled
def _first_not_below(keys: Int64, wanted: int) -> int:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _area(
    keys: Int64, genders: Int64, latitude: float, longitude: float, limit_km: float, wanted: float
) -> tuple[Int64, Int64, int, bool]:
    """Return what `GeoGrid.around` says: low, high, total and whether it is the whole reach."""
    limit = N_ROWS
    if not math.isnan(limit_km):
        limit = min(math.ceil(limit_km / KM_PER_DEGREE / CELL_DEGREES) + 1, N_ROWS)
    everywhere = math.isnan(latitude) or math.isnan(longitude)
    if everywhere:
        limit, latitude, longitude = N_ROWS, 0.0, 0.0
    row = min(max(math.floor((latitude + 90.0) / CELL_DEGREES), 0), N_ROWS - 1)
    column = math.floor((longitude + 180.0) / CELL_DEGREES) % N_COLUMNS
    low = high = np.empty(0, dtype=np.int64)
    n = total = reach = 0
    for ring in RINGS:
        reach = limit if everywhere else min(ring, limit)
        south, north = max(row - reach, 0), min(row + reach, N_ROWS - 1)
        # A degree of longitude shrinks towards the poles: widen by the row that lies farthest from the equator.
        farthest = min(max(90.0 - south * CELL_DEGREES, (north + 1) * CELL_DEGREES - 90.0), 89.9)
        width = math.ceil(reach / math.cos(math.radians(farthest)))
        west, east = column - width, column + width + 1
        if 2 * width + 1 >= N_COLUMNS:
            west, east = 0, N_COLUMNS
        n = len(genders) * (2 * (north - south + 1) + 1)
        low, high = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        n = total = 0
        for gender in genders:
            group = gender * GROUP
            for south_of in range(south, north + 1):
                start = group + south_of * N_COLUMNS
                low[n] = _first_not_below(keys, start + max(west, 0))
                high[n] = _first_not_below(keys, start + min(east, N_COLUMNS))
                n += 1
                # What lies beyond the date line.
                if west < 0 or east > N_COLUMNS:
                    low[n] = _first_not_below(keys, start + (west + N_COLUMNS if west < 0 else 0))
                    high[n] = _first_not_below(keys, start + (N_COLUMNS if west < 0 else east - N_COLUMNS))
                    n += 1
            low[n] = _first_not_below(keys, group + NOWHERE)
            high[n] = _first_not_below(keys, group + NOWHERE + 1)
            n += 1
        for i in range(n):
            total += high[i] - low[i]
        if total >= wanted or reach >= limit:
            break
    return low[:n], high[:n], total, reach >= limit


@compiled
def _every(
    order: NDArray[np.int32], alive: NDArray[np.bool_], low: Int64, high: Int64, first: int, stride: int
) -> Int64:
    """Return what `GeoGrid.drawn` says."""
    n = 0
    for i in range(len(low)):
        n += high[i] - low[i]
    out = np.empty(max(n - first + stride - 1, 0) // stride, dtype=np.int64)
    m, offset = 0, first
    for i in range(len(low)):
        size = high[i] - low[i]
        while offset < size:
            position = order[low[i] + offset]
            if alive[position]:
                out[m] = position
                m += 1
            offset += stride
        offset -= size
    return out[:m]


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
