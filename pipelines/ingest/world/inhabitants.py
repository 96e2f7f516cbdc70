"""The people of a synthetic world: what they are, what they like, where they live, whom they would meet.

Everything is a column over all people; person `i` has id `i + 1`. What a database row shows (interests, attributes)
only hints at the latent traits, so content carries some signal and behaviour more. Draws nothing of its own: the
generator passed in decides everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from feature_repo.transforms.measures import unit_vectors

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DAY_S = 86_400
YEAR_DAYS = 365.2425
N_LATENT = 8
WOMAN, MAN, NONBINARY = 1, 2, 3
GENDERS = ("", "woman", "man", "nonbinary")
NO_AGE_MIN, NO_AGE_MAX = 0, 999
INTERESTS = (
    "art", "astronomy", "baking", "board games", "books", "camping", "chess", "cinema", "classical music", "climbing",
    "cooking", "cycling", "dancing", "design", "dogs", "fashion", "festivals", "football", "gardening", "hiking",
    "history", "jazz", "languages", "meditation", "museums", "painting", "photography", "poetry", "politics", "pottery",
    "running", "sailing", "science", "skiing", "swimming", "tennis", "theatre", "travel", "video games", "yoga",
)  # fmt: skip
ATTRIBUTES = ("openness", "ambition", "humour", "calm", "height_cm", "education_years", "n_photos")


@dataclass(frozen=True)
class Inhabitants:
    """Columns over all people; times are unix seconds, ages whole years, distances km."""

    gender: NDArray[np.uint8]
    seeking: NDArray[np.uint8]  # bit 2**gender; 0 = anybody
    birth_day: NDArray[np.int32]
    age_min: NDArray[np.int16]
    age_max: NDArray[np.int16]
    city: NDArray[np.int16]
    latitude: Floats
    longitude: Floats
    max_distance_km: Floats  # infinity = no limit
    interests: NDArray[np.uint64]  # bit per INTERESTS
    attributes: Floats  # [n, len(ATTRIBUTES)]
    joined_s: Ints
    left_s: Ints  # last moment of activity
    visible: NDArray[np.bool_]
    taste: Floats  # [n, N_LATENT] what they like
    trait: Floats  # [n, N_LATENT] what they are
    popularity: Floats
    pickiness: Floats
    activity: Floats  # relative, mean 1
    nearby_cities: NDArray[np.int16]  # [n_cities, k]

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.gender)


@dataclass(frozen=True)
class Untold:
    """What people keep to themselves; None = they tell everything."""

    attributes: NDArray[np.bool_] | None = None  # [n, len(ATTRIBUTES)]
    interests: NDArray[np.bool_] | None = None

    @classmethod
    def draw(cls, people: Inhabitants, rng: np.random.Generator) -> Self:
        """Draw gaps: one person in four tells no interests, and whoever is less popular tells fewer attributes."""
        share = 0.2 + 0.2 / people.popularity.clip(0.5)
        attributes = rng.random((len(people), len(ATTRIBUTES)), dtype=np.float32) < share[:, None]
        return cls(attributes, rng.random(len(people)) < 0.25)

    def interests_told(self, people: Inhabitants, part: slice) -> NDArray[np.uint64]:
        """Return the bits of the interests that a profile shows."""
        bits = people.interests[part]
        return bits if self.interests is None else np.where(self.interests[part], np.uint64(0), bits)

    def attribute_told(self, part: slice, position: int) -> NDArray[np.bool_] | None:
        """Return whether each profile shows the attribute at this place of ATTRIBUTES; None = all do."""
        return None if self.attributes is None else ~self.attributes[part, position]


def settle(n_people: int, rng: np.random.Generator, *, start_s: int, until_s: int) -> Inhabitants:
    """Draw the people of a world whose recorded window is [start_s, until_s)."""
    gender = rng.choice(np.array([WOMAN, MAN, NONBINARY], np.uint8), size=n_people, p=[0.485, 0.485, 0.03])
    joined = _joined(n_people, rng, start_s, until_s)
    age = 18.0 + rng.gamma(2.0, 6.5, n_people).clip(0.05, 51.0)
    birth_day = (joined // DAY_S - np.ceil(age * YEAR_DAYS) - 1).astype(np.int32)
    age_min, age_max = _age_ranges(age, gender, rng)
    city, latitude, longitude, nearby = _homes(n_people, rng)
    trait = rng.standard_normal((n_people, N_LATENT), dtype=np.float32)
    # Like attracts like, to a degree.
    taste = np.float32(0.5) * trait + np.float32(0.866) * rng.standard_normal((n_people, N_LATENT), dtype=np.float32)
    fame = rng.standard_normal(n_people, dtype=np.float32)
    popularity = np.exp(np.float32(0.6) * fame)
    return Inhabitants(
        gender=gender,
        seeking=_seeking(gender, rng),
        birth_day=birth_day,
        age_min=age_min,
        age_max=age_max,
        city=city,
        latitude=latitude,
        longitude=longitude,
        max_distance_km=_distances(n_people, rng),
        interests=_interests(trait, rng),
        attributes=_attributes(trait, fame, gender, rng),
        joined_s=joined,
        left_s=_left(joined, rng, start_s, until_s),
        visible=rng.random(n_people) >= 0.01,
        taste=taste,
        trait=trait,
        popularity=popularity,
        pickiness=np.float32(0.6) * rng.standard_normal(n_people, dtype=np.float32),
        activity=np.exp(np.float32(0.7) * rng.standard_normal(n_people, dtype=np.float32) - np.float32(0.245)),
        nearby_cities=nearby,
    )


def _joined(n_people: int, rng: np.random.Generator, start_s: int, until_s: int) -> Ints:
    before = start_s - (rng.random(n_people) * 365 * DAY_S)
    during = start_s + rng.random(n_people) * (until_s - start_s) * 0.98
    joined: Ints = np.where(rng.random(n_people) < 0.65, before, during).astype(np.int64)
    return joined


def _left(joined: Ints, rng: np.random.Generator, start_s: int, until_s: int) -> Ints:
    """Most are active to the end; some stop earlier, at least half a day after they came (or the window opened)."""
    begin = np.maximum(joined, start_s) + DAY_S // 2
    early = begin + rng.random(len(joined)) * np.maximum(until_s - begin, 1)
    late = until_s - 1 - rng.exponential(1.5 * DAY_S, len(joined))
    left = np.where(rng.random(len(joined)) < 0.25, early, np.maximum(late, begin))
    last: Ints = np.minimum(left, until_s - 1).astype(np.int64)
    return last


def _seeking(gender: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    u = rng.random(len(gender))
    other = np.where(gender == WOMAN, 1 << MAN, 1 << WOMAN)
    same = 1 << gender.astype(np.int64)
    both = (1 << WOMAN) | (1 << MAN)
    wanted = np.select([u < 0.86, u < 0.92, u < 0.97], [other, same, np.full(len(gender), both)], 0)
    everyone = both | (1 << NONBINARY)
    return np.where(gender == NONBINARY, np.where(u < 0.5, 0, everyone), wanted).astype(np.uint8)


def _age_ranges(
    age: NDArray[np.float64], gender: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    younger, older = rng.exponential(4.5, len(age)), rng.exponential(3.0, len(age))
    swapped = gender == WOMAN
    below, above = np.where(swapped, older, younger) + 3, np.where(swapped, younger, older) + 3
    low = np.maximum(18, np.floor(age - below))
    high = np.minimum(99, np.ceil(age + above))
    anyone = rng.random(len(age)) < 0.06
    return (
        np.where(anyone, NO_AGE_MIN, low).astype(np.int16),
        np.where(anyone, NO_AGE_MAX, high).astype(np.int16),
    )


def _homes(n_people: int, rng: np.random.Generator) -> tuple[NDArray[np.int16], Floats, Floats, NDArray[np.int16]]:
    n_cities = int(np.clip(n_people / 3_000, 2, 80))
    latitude, longitude = rng.uniform(43.0, 53.0, n_cities), rng.uniform(-2.0, 18.0, n_cities)
    share = 1.0 / np.arange(1, n_cities + 1) ** 0.8
    city = rng.choice(n_cities, size=n_people, p=share / share.sum()).astype(np.int16)
    spread_km = 4.0 + 8.0 * share / share[0]
    north = rng.standard_normal(n_people) * spread_km[city] / 111.2
    east = rng.standard_normal(n_people) * spread_km[city] / (111.2 * np.cos(np.radians(latitude[city])))
    x, y, z = unit_vectors(latitude, longitude)
    closeness = np.outer(x, x) + np.outer(y, y) + np.outer(z, z) - 9 * np.eye(n_cities)
    nearby = np.argsort(-closeness, axis=1, kind="stable")[:, : min(3, n_cities - 1)].astype(np.int16)
    return city, (latitude[city] + north).astype(np.float32), (longitude[city] + east).astype(np.float32), nearby


def _distances(n_people: int, rng: np.random.Generator) -> Floats:
    choices = np.array([10, 20, 30, 50, 100, np.inf], np.float32)
    return rng.choice(choices, size=n_people, p=[0.05, 0.15, 0.2, 0.3, 0.15, 0.15])


def _interests(trait: Floats, rng: np.random.Generator) -> NDArray[np.uint64]:
    n_people, n_interests = len(trait), len(INTERESTS)
    loadings = rng.standard_normal((N_LATENT, n_interests), dtype=np.float32)
    # Interests tell mostly of the first traits, which matter most.
    loadings *= np.float32(0.75) ** np.arange(N_LATENT, dtype=np.float32)[:, None]
    loadings /= np.linalg.norm(loadings, axis=0)
    n_chosen = rng.integers(2, 9, n_people)
    bits = np.empty(n_people, np.uint64)
    powers = np.left_shift(np.uint64(1), np.arange(n_interests, dtype=np.uint64))
    for low in range(0, n_people, 65_536):
        part = slice(low, low + 65_536)
        drawn = np.float32(1.3) * (trait[part] @ loadings)
        drawn += rng.gumbel(size=drawn.shape).astype(np.float32)
        top = np.argpartition(-drawn, 8, axis=1)[:, :8]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(drawn, top, 1), axis=1, kind="stable"), 1)
        kept = np.arange(8) < n_chosen[part, None]
        bits[part] = np.where(kept, powers[top], np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return bits


def _attributes(trait: Floats, fame: Floats, gender: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """Noisy views of four traits, two plain facts, and one hint at popularity."""
    n_people = len(trait)
    noise = rng.standard_normal((n_people, len(ATTRIBUTES)), dtype=np.float32)
    shown = np.empty((n_people, len(ATTRIBUTES)), np.float32)
    shown[:, :4] = np.clip(5.5 + 1.8 * (0.75 * trait[:, :4] + 0.66 * noise[:, :4]), 1, 10).round(1)
    shown[:, 4] = np.round(np.where(gender == MAN, 178, np.where(gender == WOMAN, 165, 171)) + 7 * noise[:, 4])
    shown[:, 5] = np.clip(np.round(14 + 2.5 * (0.5 * trait[:, 1] + 0.87 * noise[:, 5])), 8, 22)
    shown[:, 6] = np.clip(np.round(4 + 1.5 * (0.6 * fame + 0.8 * noise[:, 6])), 0, 9)
    return shown


def shared_interests(a: Any, b: Any) -> Any:
    """Return how many interests two columns of bit sets have in common."""
    return np.bitwise_count(a & b)
