"""Who meets whom in a synthetic world, when, and what they decide: one chunk of first movers at a time.

A meeting is an unordered pair of mutually eligible people. One side decides first; the other often answers later,
more often when it was liked. Each pair can be met only from one side (a coin of the pair's own decides which), so
chunks are independent and no decision is ever made twice. Memory is bounded by the chunk, not by the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.kinds import KINDS
from pipelines.ingest.world.exposure import Exposure
from pipelines.ingest.world.inhabitants import DAY_S, Inhabitants
from pipelines.ingest.world.liking import Liking
from pipelines.ingest.world.town import Indexes, Mask, Town

LIKE, PASS, SUPERLIKE, MESSAGE, BLOCK, REPORT, UNLIKE, UNBLOCK = range(len(KINDS))
_N_ROUNDS = 5
_MOST_DRAWS = 4_000


@dataclass(frozen=True)
class EventColumns:
    """Interactions as columns: indexes of people (id - 1), kind codes (place in KINDS), unix seconds."""

    actor: Indexes
    target: Indexes
    kind: NDArray[np.uint8]
    at_s: Indexes

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.actor)


class Meetings:
    """The meetings of a world; `seed` makes the pairs' coins its own."""

    def __init__(
        self, people: Inhabitants, town: Town, exposure: Exposure, seed: int, *, start_s: int, until_s: int
    ) -> None:
        self._people, self._town, self._exposure = people, town, exposure
        self._salt = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x1234567) & (2**64 - 1))
        self._start_s, self._until_s = start_s, until_s

    def pairs(self, first: int, wanted: Indexes, rng: np.random.Generator) -> tuple[Indexes, Indexes, Indexes]:
        """Return (actor, target, at) of about `wanted[i]` meetings of person `first + i`, all pairs distinct."""
        n_actors, n_people = len(wanted), len(self._people)
        actor = np.zeros(0, np.int64)
        target, at_s = actor.copy(), actor.copy()
        missing = wanted.copy()
        fitting = 0.2
        yields = fitting * self._exposure.open_rate
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
        a, b, at_s = a[fits], b[fits], at_s[fits]
        opened = self._exposure.opened(a, b, at_s, rng)
        return a[opened], b[opened], at_s[opened]

    def _starts(self, a: Indexes, b: Indexes) -> Mask:
        """Toss the coin of each pair: whether `a` is the one who can meet first."""
        low, high = np.minimum(a, b).astype(np.uint64), np.maximum(a, b).astype(np.uint64)
        mixed = mix(low * np.uint64(0xBF58476D1CE4E5B9) + high + self._salt)
        return np.asarray((mixed & np.uint64(1) == 1) == (a < b))

    def events(self, first: int, wanted: Indexes, liking: Liking, rng: np.random.Generator) -> EventColumns:
        """Return every interaction that follows from the meetings of these people, sorted by time."""
        p, until_s = self._people, self._until_s
        a, b, at_s = self.pairs(first, wanted, rng)
        liked, kind = _decide(liking.probability(a, b, at_s), rng)
        parts = [(a, b, kind, at_s)]
        # The second side sees who liked it first, and comes back later.
        back_s = at_s + 60 + rng.exponential(1.5 * DAY_S, len(a)).astype(np.int64)
        answers = self._exposure.answers(b, a, back_s, liked)
        back = (rng.random(len(a)) < answers) & (back_s <= p.left_s[b])
        a, b, back_s, liked = a[back], b[back], back_s[back], liked[back]
        fits = self._town.eligible(b, a, back_s)
        a, b, back_s, liked = a[fits], b[fits], back_s[fits], liked[fits]
        liked_back, kind = _decide(liking.probability(b, a, back_s), rng)
        parts.append((b, a, kind, back_s))
        parts += self._aftermath(a, b, back_s, liked & liked_back, rng)
        actor, target, kinds, times = (np.concatenate(column) for column in zip(*parts, strict=True))
        kept = np.flatnonzero(times < until_s)
        order = kept[np.lexsort((target[kept], actor[kept], times[kept]))]
        return EventColumns(actor[order], target[order], kinds[order], times[order])

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
