"""Who meets whom in a synthetic world, when, and what they decide: one chunk of first movers at a time.

A meeting is an unordered pair of mutually eligible people. One side decides first; the other often answers later,
more often when it was liked. Each pair can be met only from one side (a coin of the pair's own decides which), so
chunks are independent and no decision is ever made twice. Memory is bounded by the chunk, not by the world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.transforms.measures import EARTH_DIAMETER_KM, unit_vectors
from pipelines.ingest.frames import KINDS
from pipelines.ingest.inhabitants import DAY_S, GENDERS, MAN, NONBINARY, WOMAN, YEAR_DAYS, Inhabitants

Indexes = NDArray[np.int64]
Mask = NDArray[np.bool_]
Probability = Callable[[Indexes, Indexes], NDArray[np.float64]]

LIKE, PASS, SUPERLIKE, MESSAGE, BLOCK, REPORT = range(len(KINDS))
_KEY_DAYS = 60_000
_DAY_OFFSET = 20_000
_N_ROUNDS = 5
_MOST_DRAWS = 4_000


@dataclass(frozen=True)
class Events:
    """Interactions as columns: indexes of people (id - 1), kind codes (place in KINDS), unix seconds."""

    actor: Indexes
    target: Indexes
    kind: NDArray[np.uint8]
    at_s: Indexes

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.actor)


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

    def __init__(self, people: Inhabitants) -> None:
        self._people = people
        self._calendar = Calendar(people)
        self._where = np.ascontiguousarray(unit_vectors(people.latitude, people.longitude).T)
        key = self._key(people.city, people.gender, people.birth_day)
        self._order = np.argsort(key, kind="stable")
        self._sorted_key = key[self._order]
        weight = people.popularity[self._order].astype(np.float64)
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
        gap = self._where[a] - self._where[b]
        half = np.sqrt((gap * gap).sum(axis=1)) * 0.5
        distance = EARTH_DIAMETER_KM * np.arcsin(np.minimum(half, 1.0))
        limit = np.minimum(self._people.max_distance_km[a], self._people.max_distance_km[b])
        return np.asarray(distance <= limit)

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
        away = rng.random(n_draws) < 0.06
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


class Meetings:
    """The meetings of a world; `seed` makes the pairs' coins its own."""

    def __init__(self, people: Inhabitants, town: Town, seed: int, *, start_s: int, until_s: int) -> None:
        self._people, self._town = people, town
        self._salt = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x1234567) & (2**64 - 1))
        self._start_s, self._until_s = start_s, until_s

    def pairs(self, first: int, wanted: Indexes, rng: np.random.Generator) -> tuple[Indexes, Indexes, Indexes]:
        """Return (actor, target, at) of about `wanted[i]` meetings of person `first + i`, all pairs distinct."""
        n_actors, n_people = len(wanted), len(self._people)
        actor = np.zeros(0, np.int64)
        target, at_s = actor.copy(), actor.copy()
        missing = wanted.copy()
        yields = 0.2
        for _ in range(_N_ROUNDS):
            n_draws = np.minimum(np.ceil(missing / yields), _MOST_DRAWS).astype(np.int64)
            if not n_draws.any():
                break
            drawn = self._draw(np.repeat(np.arange(first, first + n_actors), n_draws), rng)
            yields = float(np.clip(len(drawn[0]) / n_draws.sum(), 0.02, 0.5))
            actor, target, at_s = (np.concatenate(pair) for pair in zip((actor, target, at_s), drawn, strict=True))
            _, kept = np.unique(actor * n_people + target, return_index=True)
            kept.sort()
            actor, target, at_s = actor[kept], target[kept], at_s[kept]
            missing = np.maximum(wanted - np.bincount(actor - first, minlength=n_actors), 0)
        # Draws beyond the wanted number are cut; the order of draws is random, so the cut is fair.
        by_actor = np.argsort(actor, kind="stable")
        starts = np.searchsorted(actor[by_actor], np.arange(first, first + n_actors))
        place = np.arange(len(actor)) - starts[actor[by_actor] - first]
        kept = by_actor[place < wanted[actor[by_actor] - first]]
        return actor[kept], target[kept], at_s[kept]

    def _draw(self, actors: Indexes, rng: np.random.Generator) -> tuple[Indexes, Indexes, Indexes]:
        p = self._people
        a, b = self._town.draw(actors, rng, self._until_s)
        mine = self._starts(a, b) & (a != b)
        a, b = a[mine], b[mine]
        low = np.maximum(np.maximum(p.joined_s[a], p.joined_s[b]), self._start_s)
        span = p.left_s[a] - low
        at_s = low + (rng.random(len(a)) * np.maximum(span, 0)).astype(np.int64)
        met = (span > 0) & (at_s <= p.left_s[b] + 7 * DAY_S)
        a, b, at_s = a[met], b[met], at_s[met]
        fits = self._town.eligible(a, b, at_s)
        return a[fits], b[fits], at_s[fits]

    def _starts(self, a: Indexes, b: Indexes) -> Mask:
        """Toss the coin of each pair: whether `a` is the one who can meet first."""
        low, high = np.minimum(a, b).astype(np.uint64), np.maximum(a, b).astype(np.uint64)
        mixed = mix(low * np.uint64(0xBF58476D1CE4E5B9) + high + self._salt)
        return np.asarray((mixed & np.uint64(1) == 1) == (a < b))

    def events(self, first: int, wanted: Indexes, like_probability: Probability, rng: np.random.Generator) -> Events:
        """Return every interaction that follows from the meetings of these people, sorted by time."""
        p, until_s = self._people, self._until_s
        a, b, at_s = self.pairs(first, wanted, rng)
        liked, kind = _decide(like_probability(a, b), rng)
        parts = [(a, b, kind, at_s)]
        # The second side sees who liked it first, and comes back later.
        back_s = at_s + 60 + rng.exponential(1.5 * DAY_S, len(a)).astype(np.int64)
        back = (rng.random(len(a)) < np.where(liked, 0.7, 0.3)) & (back_s <= p.left_s[b])
        a, b, back_s, liked = a[back], b[back], back_s[back], liked[back]
        fits = self._town.eligible(b, a, back_s)
        a, b, back_s, liked = a[fits], b[fits], back_s[fits], liked[fits]
        liked_back, kind = _decide(like_probability(b, a), rng)
        parts.append((b, a, kind, back_s))
        parts += self._aftermath(a, b, back_s, liked & liked_back, rng)
        actor, target, kinds, times = (np.concatenate(column) for column in zip(*parts, strict=True))
        kept = np.flatnonzero(times < until_s)
        order = kept[np.lexsort((target[kept], actor[kept], times[kept]))]
        return Events(actor[order], target[order], kinds[order], times[order])

    def _aftermath(
        self, a: Indexes, b: Indexes, at_s: Indexes, matched: Mask, rng: np.random.Generator
    ) -> list[tuple[Indexes, Indexes, NDArray[np.uint8], Indexes]]:
        """Return messages after matches, and the few blocks and reports."""
        p = self._people
        talks = np.flatnonzero(matched & (rng.random(len(a)) < 0.6))
        n_messages = rng.integers(1, 5, len(talks))
        talk = np.repeat(talks, n_messages)
        number = np.arange(len(talk)) - np.repeat(np.cumsum(n_messages) - n_messages, n_messages)
        from_b = (number + rng.integers(0, 2, len(talks)).repeat(n_messages)) % 2 == 1
        sender, receiver = np.where(from_b, b[talk], a[talk]), np.where(from_b, a[talk], b[talk])
        sent_s = at_s[talk] + 120 + ((number + rng.random(len(talk))) * 6 * 3600).astype(np.int64)
        spoken = sent_s <= p.left_s[sender]
        after = [(sender[spoken], receiver[spoken], np.full(int(spoken.sum()), MESSAGE, np.uint8), sent_s[spoken])]
        for kind, share in ((BLOCK, 0.004), (REPORT, 0.0015)):
            angry = np.flatnonzero(rng.random(len(a)) < share)
            angry_s = at_s[angry] + 3 * DAY_S
            in_time = angry_s <= p.left_s[b[angry]]
            angry, angry_s = angry[in_time], angry_s[in_time]
            after.append((b[angry], a[angry], np.full(len(angry), kind, np.uint8), angry_s))
        return after


def _decide(probability: NDArray[np.float64], rng: np.random.Generator) -> tuple[Mask, NDArray[np.uint8]]:
    """Draw decisions; four likes in a hundred are superlikes."""
    liked = rng.random(len(probability)) < probability
    likes = np.where(rng.random(len(probability)) < 0.04, SUPERLIKE, LIKE)
    return liked, np.where(liked, likes, PASS).astype(np.uint8)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
