"""Ages and distances, the same to the last bit for one person or a million.

Everything is elementwise in float64: no BLAS, no reductions whose order could change with the number of rows. That is
what makes training rows and serving rows bit-equal. Places and distances come from the same compiled loops everywhere.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import SECONDS_PER_DAY
from feature_repo.transforms import loops
from feature_repo.transforms.loops import DAYS_PER_YEAR, EARTH_DIAMETER_KM

__all__ = [
    "DAYS_PER_YEAR",
    "EARTH_DIAMETER_KM",
    "haversine_km",
    "unit_vectors",
    "whole_years",
    "whole_years_at",
]

Float64 = NDArray[np.float64]


def whole_years(birth_day: ArrayLike, at: ArrayLike) -> Float64:
    """Return ages in birthdays had at unix seconds `at` (UTC calendar); NaN where the birth day is."""
    born = np.asarray(birth_day, dtype=np.float64)
    known = np.where(np.isnan(born), 0.0, born).astype(np.int64)
    birth_year, birth_rank = _calendar(known)
    year, rank = _calendar(np.floor(np.asarray(at, dtype=np.float64) / SECONDS_PER_DAY).astype(np.int64))
    return np.where(np.isnan(born), np.nan, (year - birth_year) - (rank < birth_rank))


def whole_years_at(birth_day: float, at: float) -> float:
    """Return what `whole_years` says of one person, which is asked for at every request."""
    if not math.isfinite(birth_day):
        return math.nan
    years, born = math.floor((at / SECONDS_PER_DAY - birth_day) / DAYS_PER_YEAR), math.floor(birth_day)
    while latest_birth_day(years + 1, at) >= born:
        years += 1
    while latest_birth_day(years, at) < born:
        years -= 1
    return float(years)


def latest_birth_day(age: int, at: float) -> int:
    """Return the last birth day (days since 1970) of those who have had `age` birthdays at unix seconds `at` (UTC)."""
    return _latest_birth_day(age, math.floor(at / SECONDS_PER_DAY))


@lru_cache(maxsize=4096)  # few ages, and few days
def _latest_birth_day(age: int, day: int) -> int:
    today = np.datetime64(day, "D")
    this_month = today.astype("datetime64[M]")
    month = this_month - 12 * age
    first, following = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]")
    # Whoever was born on a 29th of February has no birthday in most years, but is a year older in March.
    return int((min(first + (today - this_month.astype("datetime64[D]")), following - 1)).astype(np.int64))


def _calendar(day: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the year, and the place of the date within it as 100 * month + day of month."""
    dates = day.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    month = months.astype(np.int64)
    day_of_month = (dates - months.astype("datetime64[D]")).astype(np.int64)
    return month // 12, month % 12 * 100 + day_of_month


def unit_vectors(latitude: ArrayLike, longitude: ArrayLike) -> Float64:
    """Return the coordinates of points on the unit sphere, float64[3, n]; degrees in, NaN stays NaN."""
    return loops.unit_vectors(
        np.ascontiguousarray(latitude, dtype=np.float64).ravel(),
        np.ascontiguousarray(longitude, dtype=np.float64).ravel(),
    )


def haversine_km(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> Float64:
    """Return great-circle distances in km, float64[n], one place against n allowed; NaN where a coordinate is."""
    return loops.distances_km(unit_vectors(latitude, longitude), unit_vectors(other_latitude, other_longitude))
