"""Where the people of a synthetic world live and whom they could meet: hard preferences and draws by popularity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_repo.transforms.measures import EARTH_DIAMETER_KM, unit_vectors
from pipelines.ingest.world.inhabitants import DAY_S, GENDERS, MAN, NONBINARY, WOMAN, YEAR_DAYS, Inhabitants

Indexes = NDArray[np.int64]
Mask = NDArray[np.bool_]

_KEY_DAYS = 60_000
_DAY_OFFSET = 20_000
_AWAY = 0.06  # how often somebody looks beyond the own city


class Calendar:
    """Exact whole years for the days of one window: the same rule as `measures.whole_years`, by table."""

    def __init__(self, people: Inhabitants) -> None:
        self._birth_year, self._birth_rank = _year_and_rank(people.birth_day.astype(np.int64))

    def age(self, who: Indexes, at_s: Indexes) -> NDArray[np.int64]:
        """Return the birthdays had at unix seconds `at_s` (UTC)."""
        day = at_s // DAY_S
        first = int(day.min(initial=0 if not len(day) else int(day[0])))
        years, ranks = _year_and_rank(np.arange(first, int(day.max(initial=first)) + 1))
        place = day - first
        return years[place] - self._birth_year[who] - (ranks[place] < self._birth_rank[who])


def _year_and_rank(day: Indexes) -> tuple[Indexes, Indexes]:
    dates = day.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    month = months.astype(np.int64)
    in_month = (dates - months.astype("datetime64[D]")).astype(np.int64)
    return month // 12, month % 12 * 100 + in_month


class Town:
    """The eligible neighbourhood: two-sided preferences, and people sorted so that those who fit are one slice."""

    def __init__(self, people: Inhabitants, *, popularity_bias: float = 1.0) -> None:
        self._people = people
        self._calendar = Calendar(people)
        self._where = np.ascontiguousarray(unit_vectors(people.latitude, people.longitude).T)
        key = self._key(people.city, people.gender, people.birth_day)
        self._order = np.argsort(key, kind="stable")
        self._sorted_key = key[self._order]
        self._place = np.empty(len(people), np.int64)
        self._place[self._order] = np.arange(len(people))
        weight = people.popularity[self._order].astype(np.float64) ** popularity_bias
        self._cumulated = np.concatenate(([0.0], np.cumsum(weight)))
        self._gender_draw = _gender_table()

    @staticmethod
    def _key(city: NDArray[np.int16], gender: NDArray[np.uint8], birth_day: NDArray[np.int32]) -> Indexes:
        segment = city.astype(np.int64) * len(GENDERS) + gender
        return segment * _KEY_DAYS + birth_day.astype(np.int64) + _DAY_OFFSET

    def eligible(self, a: Indexes, b: Indexes, at_s: Indexes) -> Mask:
        """Return whether both accept each other's gender, age and distance at that time."""
        # Cheapest test first, each only on those that passed the ones before.
        passed = np.flatnonzero((a != b) & self._wants(a, b) & self._wants(b, a))
        for chooser, chosen in ((b, a), (a, b)):
            passed = passed[self._of_age(chooser[passed], chosen[passed], at_s[passed])]
        passed = passed[self._near(a[passed], b[passed])]
        fits = np.zeros(len(a), dtype=bool)
        fits[passed] = True
        return fits

    def _near(self, a: Indexes, b: Indexes) -> Mask:
        limit = np.minimum(self._people.max_distance_km[a], self._people.max_distance_km[b])
        return np.asarray(self.distance_km(a, b) <= limit)

    def distance_km(self, a: Indexes, b: Indexes) -> NDArray[np.float64]:
        """Return the distance of each pair, float64[n]."""
        gap = self._where[a] - self._where[b]
        half = np.sqrt((gap * gap).sum(axis=1)) * 0.5
        return np.asarray(EARTH_DIAMETER_KM * np.arcsin(np.minimum(half, 1.0)))

    def _wants(self, a: Indexes, b: Indexes) -> Mask:
        seeking = self._people.seeking[a]
        return np.asarray((seeking == 0) | ((seeking >> self._people.gender[b]) & 1 == 1))

    def _of_age(self, a: Indexes, b: Indexes, at_s: Indexes) -> Mask:
        age = self._calendar.age(b, at_s)
        return np.asarray((age >= self._people.age_min[a]) & (age <= self._people.age_max[a]))

    def draw(self, actors: Indexes, rng: np.random.Generator, until_s: int) -> tuple[Indexes, Indexes]:
        """Draw one person for each actor, by popularity among a fitting gender, age and city; some find nobody."""
        p = self._people
        n_draws = len(actors)
        first = int(actors.min(initial=actors[0])) if n_draws else 0
        slices = self._slices(np.arange(first, int(actors.max(initial=first)) + 1), until_s)
        # Place 0 is the own city, the others are those nearby.
        away = rng.random(n_draws) < _AWAY
        hop = rng.integers(0, p.nearby_cities.shape[1], n_draws)
        place = np.where(away, hop + 1, 0)
        cumulated = self._gender_draw[p.seeking[actors]]
        u = rng.random(n_draws)
        gender = (u >= cumulated[:, 0]).astype(np.int64) + (u >= cumulated[:, 1])
        low, high = (side[actors - first, place, gender] for side in slices)
        found = high > low
        actors, low, high = actors[found], low[found], high[found]
        floor, ceiling = self._cumulated[low], self._cumulated[high]
        pick = np.searchsorted(self._cumulated, floor + rng.random(len(actors)) * (ceiling - floor), side="right") - 1
        return actors, self._order[np.clip(pick, low, high - 1)]

    def draw_chance(self, actor: int, until_s: int) -> NDArray[np.float64]:
        """Return the chance that one draw for this actor is each person of the town, float64[n people]."""
        low, high = (side[0] for side in self._slices(np.array([actor]), until_s))
        n_places = len(low)
        of_place = np.append(1.0 - _AWAY, np.full(n_places - 1, _AWAY / (n_places - 1)))
        of_gender = np.diff(np.append(np.append(0.0, self._gender_draw[self._people.seeking[actor]]), 1.0))
        chance = np.zeros(len(self._place))
        weight = np.diff(self._cumulated)
        for place, gender in zip(*np.nonzero(high > low), strict=True):
            part = slice(low[place, gender], high[place, gender])
            chance[part] += of_place[place] * of_gender[gender] * weight[part] / weight[part].sum()
        return chance[self._place]

    def _slices(self, actors: Indexes, until_s: int) -> tuple[Indexes, Indexes]:
        """Return where each actor's age range begins and ends in the sorted people, [n, places, genders] each."""
        p = self._people
        cities = np.concatenate([p.city[actors, None], p.nearby_cities[p.city[actors]]], axis=1).astype(np.int64)
        genders = np.arange(WOMAN, NONBINARY + 1)
        base = (cities[:, :, None] * len(GENDERS) + genders) * _KEY_DAYS + _DAY_OFFSET
        today = until_s // DAY_S
        # A year of slack on both ends: ages are checked exactly at the time of the meeting.
        oldest = today - ((np.minimum(p.age_max[actors], 120) + 2) * YEAR_DAYS).astype(np.int64)
        youngest = today - ((p.age_min[actors] - 1) * YEAR_DAYS).astype(np.int64)
        low = base + np.maximum(oldest, -_DAY_OFFSET)[:, None, None]
        high = base + np.minimum(youngest, _KEY_DAYS - _DAY_OFFSET - 1)[:, None, None]
        return np.searchsorted(self._sorted_key, low), np.searchsorted(self._sorted_key, high)


def _gender_table() -> NDArray[np.float64]:
    """Return, per seeking mask, the cumulated chance of drawing a woman and of a woman or a man."""
    table = np.ones((16, 2))
    common = {WOMAN: 0.485, MAN: 0.485, NONBINARY: 0.03}
    for mask in range(16):
        shares = [common[g] if mask == 0 or mask >> g & 1 else 0.0 for g in (WOMAN, MAN, NONBINARY)]
        total = sum(shares) or 1.0
        table[mask] = shares[0] / total, (shares[0] + shares[1]) / total
    return table
