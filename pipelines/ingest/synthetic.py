"""A synthetic world with known ground truth: who would like whom, with which probability.

`World.generate(**parameters)` rebuilds the same world from the parameters kept in `duet.imports`, so that
evaluation can ask the oracle. Deterministic in its parameters; interactions come in chunks, so that a million people
and fifty million interactions fit into bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from pipelines.ingest import inhabitants as town_hall
from pipelines.ingest.errors import RefusedWorld
from pipelines.ingest.frames import KINDS
from pipelines.ingest.inhabitants import DAY_S, Inhabitants, settle, shared_interests
from pipelines.ingest.meetings import Events, Meetings, Town
from pipelines.ingest.names import first_names

DEFAULT_UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
LIKE_RATE = 0.30
CHUNK_PEOPLE = 4_096
# What follows from one meeting on average: decisions of both sides, messages, blocks. Measured.
_EVENTS_PER_MEETING = 1.37
_TASTE_WEIGHT = 1.6 / np.sqrt(town_hall.N_LATENT)
_POPULARITY_WEIGHT = 0.55
_INTEREST_WEIGHT = 0.18
_ORACLE_BLOCK = 1 << 18


class World:
    """People with ids 1..N, their truth and their history. Build one with `World.generate`."""

    def __init__(self, people: Inhabitants, parameters: dict[str, Any], *, start_s: int, until_s: int) -> None:
        self.people = people
        self.parameters = parameters
        self.start_s, self.until_s = start_s, until_s
        self._town = Town(people)
        self._seed = int(parameters["seed"])
        self._meetings = Meetings(people, self._town, self._seed, start_s=start_s, until_s=until_s)
        self._intercept = 0.0
        self._intercept = self._calibrated()

    @classmethod
    def generate(
        cls,
        people: int,
        seed: int,
        *,
        interactions_per_person: float = 50,
        days: int = 120,
        until: datetime | str = DEFAULT_UNTIL,
    ) -> Self:
        """Draw the world of these parameters; raises RefusedWorld when one is out of bounds.

        Args:
            people: number of people, 20 to 10,000,000.
            seed: any integer from 0.
            interactions_per_person: about how many interactions there are per person; small worlds run out of pairs.
            days: length of the recorded window.
            until: end of the window, exclusive, aware; ISO text is read too.
        """
        end = datetime.fromisoformat(until) if isinstance(until, str) else until
        for name, value, low, high in (
            ("people", people, 20, 10_000_000),
            ("seed", seed, 0, 2**63 - 1),
            ("interactions_per_person", interactions_per_person, 0, 2_000),
            ("days", days, 2, 3_650),
        ):
            if not low <= value <= high:
                raise RefusedWorld(f"A world's `{name}` must be between {low} and {high}, not `{value}`.")
        if end.tzinfo is None:
            raise RefusedWorld(f"A world's `until` needs a time zone, `{end.isoformat()}` has none.")
        until_s = int(end.timestamp())
        start_s = until_s - days * DAY_S
        parameters = {
            "people": people,
            "seed": seed,
            "interactions_per_person": interactions_per_person,
            "days": days,
            "until": end.astimezone(UTC).isoformat(),
        }
        drawn = settle(people, np.random.default_rng([seed, 0]), start_s=start_s, until_s=until_s)
        return cls(drawn, parameters, start_s=start_s, until_s=until_s)

    @property
    def user_ids(self) -> NDArray[np.int64]:
        """Return the ids 1..N."""
        return np.arange(1, len(self.people) + 1, dtype=np.int64)

    def like_probability(self, actor_ids: ArrayLike, target_ids: ArrayLike) -> NDArray[np.float64]:
        """Return the chance that each actor likes the target when shown it (eligible or not); ids broadcast."""
        a, b = self._indexes(actor_ids, target_ids)
        return self._probability(a.ravel(), b.ravel()).reshape(a.shape)

    def match_probability(self, actor_ids: ArrayLike, target_ids: ArrayLike) -> NDArray[np.float64]:
        """Return the chance that both like each other when both are asked: the two decisions are independent."""
        return self.like_probability(actor_ids, target_ids) * self.like_probability(target_ids, actor_ids)

    def eligible(self, actor_ids: ArrayLike, target_ids: ArrayLike, at: datetime | None = None) -> NDArray[np.bool_]:
        """Return whether both sides' hard preferences admit each other at `at` (default: the end of the window)."""
        a, b = self._indexes(actor_ids, target_ids)
        at_s = np.full(a.size, self.until_s if at is None else int(at.timestamp()), dtype=np.int64)
        return self._town.eligible(a.ravel(), b.ravel(), at_s).reshape(a.shape)

    def _indexes(self, actor_ids: ArrayLike, target_ids: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        a, b = np.broadcast_arrays(np.asarray(actor_ids, np.int64) - 1, np.asarray(target_ids, np.int64) - 1)
        for ids in (a, b):
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.people):
                raise RefusedWorld(f"This world's people have the ids 1 to {len(self.people)}; another was asked for.")
        return a, b

    def _probability(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.empty(len(a))
        for low in range(0, len(a), _ORACLE_BLOCK):
            part = slice(low, low + _ORACLE_BLOCK)
            found[part] = self._logit(a[part], b[part])
        return np.asarray(1.0 / (1.0 + np.exp(-(found + self._intercept))))

    def _logit(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
        p = self.people
        # Elementwise product and sum, not BLAS: the same bits whatever the number of pairs.
        liking = (p.taste[a] * p.trait[b]).sum(axis=1)
        common = np.minimum(shared_interests(p.interests[a], p.interests[b]), 4)
        logit = _TASTE_WEIGHT * liking + _POPULARITY_WEIGHT * p.popularity[b] - p.pickiness[a]
        return np.asarray(logit + _INTEREST_WEIGHT * common, dtype=np.float32)

    def _calibrated(self) -> float:
        """Return the intercept that gives the pairs people really meet the like rate LIKE_RATE."""
        rng = np.random.default_rng([self._seed, 1])
        n_people = len(self.people)
        n_sampled = min(n_people, 4_000)
        first = int(rng.integers(0, n_people - n_sampled + 1))
        a, b, _ = self._meetings.pairs(first, np.full(n_sampled, 10, np.int64), rng)
        if not len(a):
            raise RefusedWorld(f"In a world of {n_people} people nobody fits anybody; ask for more people.")
        logits = self._logit(a, b).astype(np.float64)
        low, high = -20.0, 20.0
        for _ in range(50):
            middle = (low + high) / 2
            rate = float(np.mean(1.0 / (1.0 + np.exp(-(logits + middle)))))
            low, high = (middle, high) if rate < LIKE_RATE else (low, middle)
        return (low + high) / 2

    def n_chunks(self) -> int:
        """Return how many chunks `event_chunks` yields."""
        return -(-len(self.people) // CHUNK_PEOPLE)

    def event_chunks(self) -> Iterator[Events]:
        """Yield all interactions, one chunk of first movers at a time, each sorted by time."""
        mean = float(self.parameters["interactions_per_person"]) / _EVENTS_PER_MEETING
        for number in range(self.n_chunks()):
            rng = np.random.default_rng([self._seed, 2, number])
            first = number * CHUNK_PEOPLE
            rate = self.people.activity[first : first + CHUNK_PEOPLE].astype(np.float64) * mean
            wanted = np.floor(rate + rng.random(len(rate))).astype(np.int64)
            yield self._meetings.events(first, wanted, self._probability, rng)

    def interaction_chunks(self) -> Iterator[pa.Table]:
        """Yield Arrow tables of actor_id, target_id, kind (dictionary), occurred_at; each sorted by time."""
        kinds = pa.array(KINDS)
        for events in self.event_chunks():
            yield pa.table(
                {
                    "actor_id": pa.array(events.actor + 1),
                    "target_id": pa.array(events.target + 1),
                    "kind": pa.DictionaryArray.from_arrays(pa.array(events.kind.astype(np.int8)), kinds),
                    "occurred_at": pa.array(events.at_s * 1_000_000).cast(pa.timestamp("us", "UTC")),
                }
            )

    def users_table(self, first: int = 0, stop: int | None = None) -> pa.Table:
        """Return people `first` to `stop` (places, not ids) as the columns of `duet.users`."""
        p, part = self.people, slice(first, len(self.people) if stop is None else stop)
        ids = self.user_ids[part]
        genders = pa.array([*town_hall.GENDERS])
        limits = p.max_distance_km[part]
        return pa.table(
            {
                "user_id": pa.array(ids),
                "birth_date": pa.array(p.birth_day[part]).cast(pa.date32()),
                "gender": genders.take(pa.array(p.gender[part])),
                "seeking": _bit_lists(p.seeking[part].astype(np.uint64), town_hall.GENDERS),
                "age_min": pa.array(p.age_min[part], mask=p.age_min[part] == town_hall.NO_AGE_MIN),
                "age_max": pa.array(p.age_max[part], mask=p.age_max[part] == town_hall.NO_AGE_MAX),
                "latitude": pa.array(p.latitude[part]),
                "longitude": pa.array(p.longitude[part]),
                "max_distance_km": pa.array(limits, mask=~np.isfinite(limits)),
                "interests": _bit_lists(p.interests[part], town_hall.INTERESTS),
                "bio": pa.nulls(len(ids), pa.string()),
                "created_at": pa.array(p.joined_s[part] * 1_000_000).cast(pa.timestamp("us", "UTC")),
                "last_active_at": pa.array(p.left_s[part] * 1_000_000).cast(pa.timestamp("us", "UTC")),
                "visible": pa.array(p.visible[part]),
                "attributes": self._attributes(part),
            }
        )

    def users_frame(self) -> pd.DataFrame:
        """Return all people as the columns of `duet.users`; lists as arrays, `attributes` as JSON text."""
        frame: pd.DataFrame = self.users_table().to_pandas()
        return frame

    def _attributes(self, part: slice) -> Any:
        import pyarrow.compute as pc

        p = self.people
        pieces: list[Any] = ['{"first_name": "', first_names(self.user_ids[part], p.gender[part], self._seed), '"']
        for position, name in enumerate(town_hall.ATTRIBUTES):
            values = pa.array(p.attributes[part, position]).cast(pa.string())
            pieces += [f", {json.dumps(name)}: ", values]
        return pc.binary_join_element_wise(*pieces, "}", "")


def _bit_lists(bits: NDArray[np.uint64], names: tuple[str, ...]) -> Any:
    """Return the names of each row's set bits as `list<string>`."""
    held = (bits[:, None] >> np.arange(len(names), dtype=np.uint64)) & np.uint64(1) == 1
    _, which = np.nonzero(held)
    offsets = np.concatenate(([0], np.cumsum(held.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(names).take(pa.array(which)))


def midnight(now: datetime) -> datetime:
    """Return the last midnight in UTC: the end of a world imported today."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
