"""Ages and distances, the same to the last bit for one person or a million.

Everything is elementwise in float64 on contiguous columns: no BLAS, no reductions whose order could change
with the number of rows. That is what makes training rows and serving rows bit-equal.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import SECONDS_PER_DAY

Float64 = NDArray[np.float64]
EARTH_DIAMETER_KM = 2 * 6371.0088
DAYS_PER_YEAR = 365.2425


def age_years(birth_day: ArrayLike, at: ArrayLike) -> Float64:
    """Return ages in years with a fraction at unix seconds `at`; NaN where the birth day is."""
    born = np.asarray(birth_day, dtype=np.float64)
    return (np.asarray(at, dtype=np.float64) / SECONDS_PER_DAY - born) / DAYS_PER_YEAR


def whole_years(birth_day: ArrayLike, at: ArrayLike) -> Float64:
    """Return ages in birthdays had at unix seconds `at` (UTC calendar); NaN where the birth day is."""
    born = np.asarray(birth_day, dtype=np.float64)
    known = np.where(np.isnan(born), 0.0, born).astype(np.int64)
    birth_year, birth_rank = _calendar(known)
    year, rank = _calendar(np.floor(np.asarray(at, dtype=np.float64) / SECONDS_PER_DAY).astype(np.int64))
    return np.where(np.isnan(born), np.nan, (year - birth_year) - (rank < birth_rank))


def latest_birth_day(age: int, at: float) -> int:
    """Return the last birth day (days since 1970) of those who have had `age` birthdays at unix seconds `at` (UTC)."""
    today = np.datetime64(int(np.floor(at / SECONDS_PER_DAY)), "D")
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


def unit_vectors(latitude: ArrayLike, longitude: ArrayLike) -> tuple[Float64, Float64, Float64]:
    """Return the three coordinates of points on the unit sphere, each float64[n]; degrees in, NaN stays NaN."""
    phi = np.ascontiguousarray(latitude, dtype=np.float64) * (np.pi / 180.0)
    lam = np.ascontiguousarray(longitude, dtype=np.float64) * (np.pi / 180.0)
    around = np.cos(phi)
    return around * np.cos(lam), around * np.sin(lam), np.sin(phi)


def chord_km(a: tuple[Float64, Float64, Float64], b: tuple[Float64, Float64, Float64]) -> Float64:
    """Return great-circle distances in km between unit vectors, elementwise, 1 row against n allowed."""
    dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    half = np.sqrt(dx * dx + dy * dy + dz * dz) * 0.5
    return np.asarray(EARTH_DIAMETER_KM * np.arcsin(np.minimum(half, 1.0)))


def haversine_km(
    latitude: ArrayLike, longitude: ArrayLike, other_latitude: ArrayLike, other_longitude: ArrayLike
) -> Float64:
    """Return great-circle distances in km as float64; NaN where a coordinate is missing."""
    return chord_km(unit_vectors(latitude, longitude), unit_vectors(other_latitude, other_longitude))
