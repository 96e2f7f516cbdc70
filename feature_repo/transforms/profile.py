"""From what a person says about themselves to the packed profile vector.

Pure numpy: `users` is anything that gives a column by name (a DataFrame, a dict of lists), so the request
path needs no pandas. Vocabularies are free of state: a gender or an interest gets its code by its name alone.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import (
    FIRST_OTHER_GENDER,
    GENDER_CODES,
    INTEREST_BITS_PER_WORD,
    INTEREST_WORDS,
    N_GENDERS,
    N_INTEREST_BUCKETS,
    PROFILE,
    SECONDS_PER_DAY,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
_ORDINAL_1970: Final = date(1970, 1, 1).toordinal()
_DAY_MICROS: Final = int(SECONDS_PER_DAY) * 1_000_000
_NAT: Final = int(np.iinfo(np.int64).min)


class Columns(Protocol):
    """Anything with columns by name."""

    def __getitem__(self, name: str, /) -> Any:
        """Return the column."""

    def __contains__(self, name: object, /) -> bool:
        """Tell whether there is such a column."""


def _stable_hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=4096)
def gender_code(gender: str | None) -> int:
    """Return the code of a gender: 0 unknown, 1 to 3 the common ones, 4 to 15 by a stable hash of the name."""
    name = "" if gender is None else gender.strip().casefold()
    if not name:
        return 0
    known = GENDER_CODES.get(name)
    return FIRST_OTHER_GENDER + _stable_hash(name) % (N_GENDERS - FIRST_OTHER_GENDER) if known is None else known


@lru_cache(maxsize=65_536)
def interest_bucket(interest: str) -> int:
    """Return which of the 240 buckets an interest falls into."""
    return _stable_hash(_folded(interest)) % N_INTEREST_BUCKETS


@lru_cache(maxsize=65_536)
def _folded(name: str) -> str:
    return name.strip().casefold()


@lru_cache(maxsize=65_536)
def _seeking_mask(genders: tuple[str, ...]) -> int:
    mask = 0
    for gender in genders:
        mask |= 1 << gender_code(gender)
    return mask & ~1  # bit 0 would be "unknown", which nobody can ask for


def profile_vectors(users: Columns) -> Float32:
    """Pack users into float32[n, PROFILE.width].

    Columns as in `people.parquet`: birth_date, gender, seeking, age_min, age_max, latitude, longitude,
    max_distance_km, interests, bio_length, created_at. A column that is absent counts as unknown throughout.
    """
    n = len(users["user_id"])
    packed = PROFILE.default_rows(n)

    def put(column: str, values: Iterable[float] | Float64) -> None:
        packed[:, PROFILE.index(column)] = np.asarray(values, dtype=np.float64)

    if "birth_date" in users:
        put("birth_day", days(users["birth_date"], whole=True))
    if "created_at" in users:
        put("created_day", days(users["created_at"]))
    for column in ("age_min", "age_max", "latitude", "longitude", "max_distance_km"):
        if column in users:
            put(column, numbers(users[column]))
    if "gender" in users:
        put("gender", np.array([gender_code(_text(value)) for value in users["gender"]], dtype=np.float64))
    if "seeking" in users:
        put("seeking", np.array([_seeking_mask(_names(value)) for value in users["seeking"]], dtype=np.float64))
    if "bio_length" in users:
        put("bio_length", np.nan_to_num(numbers(users["bio_length"]), nan=0.0))
    if "interests" in users:
        named = [_names(value) for value in users["interests"]]
        put(
            "n_interests",
            np.array([len(set(map(_folded, names))) for names in named], dtype=np.float64),
        )
        first = PROFILE.index("interests_00")
        packed[:, first : first + INTEREST_WORDS] = _interest_words(named)
    return packed


def _interest_words(named: Sequence[tuple[str, ...]]) -> Float32:
    lengths = np.fromiter(map(len, named), dtype=np.int64, count=len(named))
    buckets = np.fromiter(map(interest_bucket, chain.from_iterable(named)), dtype=np.int64, count=int(lengths.sum()))
    words = np.zeros(len(named) * INTEREST_WORDS, dtype=np.uint32)
    word = np.repeat(np.arange(len(named)), lengths) * INTEREST_WORDS + buckets // INTEREST_BITS_PER_WORD
    bits = np.left_shift(np.uint32(1), (buckets % INTEREST_BITS_PER_WORD).astype(np.uint32))
    np.bitwise_or.at(words, word, bits)
    return words.reshape(len(named), INTEREST_WORDS).astype(np.float32)


def numbers(values: Any) -> Float64:
    """Return float64[n]; None, NA and NaN become NaN."""
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    given = list(values)
    try:
        return np.array(given, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError):
        return np.array([np.nan if _missing(value) else float(value) for value in given], dtype=np.float64)


def days(values: Any, *, whole: bool = False) -> Float64:
    """Return days since 1970-01-01 UTC as float64[n], NaN where missing; `whole` drops the time of day."""
    dtype = getattr(values, "dtype", None)
    if dtype is not None and dtype.kind == "M":
        instants = values.to_numpy(dtype="datetime64[us]") if hasattr(values, "to_numpy") else np.asarray(values)
    else:
        instants = np.array([_micros(value) for value in values], dtype=np.int64).view("datetime64[us]")
    micros = instants.astype("datetime64[us]").astype(np.int64)
    since = np.where(np.isnat(instants), np.nan, micros / 1e6 / SECONDS_PER_DAY)
    return np.floor(since) if whole else since


def _micros(value: Any) -> int:
    """Return microseconds since 1970-01-01 UTC; those of NaT where missing."""
    kind = type(value)
    if kind is date:
        return int(value.toordinal() - _ORDINAL_1970) * _DAY_MICROS
    if kind is not datetime and _missing(value):
        return _NAT
    micros: int
    if getattr(value, "tzinfo", None) is not None:
        micros = round(value.timestamp() * 1e6)
    else:
        micros = np.datetime64(value, "us").astype(np.int64).item()
    return micros


def _missing(value: Any) -> bool:
    if value is None:
        return True
    same = value == value  # noqa: PLR0124 - NaN and NaT differ from themselves; pandas.NA answers with itself
    return same is not True and not (isinstance(same, np.bool_) and bool(same))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (list, tuple, np.ndarray, set, frozenset)) else ()
