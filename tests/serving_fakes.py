# ruff: noqa: ARG002 fakes take what the real ones take
"""Hand-written fakes of what serving depends on: Postgres, the online store, and a world in memory."""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np

from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.population.traits import GivenTraits
from feature_repo.transforms import attribute_vectors, profile_vectors
from infra.clock import Clock, SystemClock
from infra.metrics import serving_metrics
from infra.settings import BreakerSettings, Settings
from registry.release import Release
from registry.scoring.newcomers import Newcomers
from registry.scoring.recent_likes import RecentLikes
from serving.cache.answer_cache import AnswerCache
from serving.errors import Degraded, EligibilityUnknown, FeaturesUnavailable, StorageUnavailable
from serving.experiments.assignment import Assignment, Variant
from serving.logs.impressions import Answered, Impression
from serving.people.people_store import PROFILE_COLUMNS, Drawn, Int64, PairStanding, PendingLikes, RequesterRow, Rows
from serving.reasons import Reason
from serving.recommend.levels import Strategy, ladder
from serving.recommend.recommender import Recommender, champion_only
from serving.recommend.serving_state import ServingState
from serving.recommend.unlogged import UnloggedLists
from serving.resilience.breaker import Breaker, Dependency
from serving.warm_up import warm_up
from tests.serving_world import GHENT, START


def closed_breaker() -> Breaker:
    """A breaker of its own for one test, with the default settings."""
    return Breaker(Dependency.POSTGRES, BreakerSettings(), SystemClock(), serving_metrics())


# Tests with deadlines of milliseconds must not wait for a compiler.
warm_up()


def person(user_id: int, **changes: Any) -> dict[str, Any]:
    """One row of the town: odd ids are women who seek men, even ids men who seek women."""
    woman = user_id % 2 == 1
    row = {
        "user_id": user_id,
        "birth_date": date(1987 + user_id % 15, 3, 4),
        "gender": "woman" if woman else "man",
        "seeking": ["man"] if woman else ["woman"],
        "age_min": None,
        "age_max": None,
        "latitude": GHENT[0] + user_id / 1000,
        "longitude": GHENT[1],
        "max_distance_km": None,
        "interests": ["hiking"] if user_id % 4 < 2 else ["chess"],
        "bio_length": 0,
        "created_at": START,
    }
    return {**row, **changes}


def columns(rows: Sequence[dict[str, Any]]) -> Rows:
    """Arrange rows as columns."""
    return Rows({name: [row[name] for row in rows] for name in PROFILE_COLUMNS})


def people_of(rows: Sequence[dict[str, Any]], slots: Mapping[str, int] | None = None) -> People:
    """Return rows as feature rows, without activity."""
    packed = columns(rows).columns
    attributes = attribute_vectors({"attributes": [row.get("attributes", {}) for row in rows]}, slots or {})
    return People.build(packed["user_id"], profile=profile_vectors(packed), attributes=attributes)


@dataclass
class MemoryPeople:
    """A PeopleStore over rows in memory; `down` and `down_for_safety` make it fail like a database would."""

    rows: dict[int, dict[str, Any]]
    decided: dict[int, set[int]] = field(default_factory=dict)
    separated: set[frozenset[int]] = field(default_factory=set)
    liked: dict[int, list[int]] = field(default_factory=dict)
    pending: dict[int, PendingLikes] = field(default_factory=dict)
    updated_at: dict[int, datetime] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    down: bool = False
    down_for_safety: bool = False
    slow: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    drawn_with: float = 1.0

    def update(self, user_id: int, at: datetime, **changes: Any) -> None:
        """Change one person's row, as an UPDATE at `at` would."""
        self.rows[user_id] = {**self.rows[user_id], **changes}
        self.updated_at[user_id] = at

    async def requester(
        self, user_id: int, timeout_s: float, *, since: datetime | None = None, fresh: bool = False
    ) -> RequesterRow | None:
        await self._read("requester", timeout_s, down=self.down)
        if user_id not in self.rows:
            return None
        apart = self._apart(user_id)
        excluded = np.array(sorted({user_id, *self.decided.get(user_id, set()), *apart}), dtype=np.int64)
        liked = np.array(self.liked.get(user_id, []), dtype=np.int64)
        pending = self.pending.get(user_id, PendingLikes.unknown())
        updated_at = self.updated_at.get(user_id, START)
        known = since is not None and updated_at <= since
        return RequesterRow(
            None if known else columns([self.rows[user_id]]),
            None if known else {},
            excluded,
            liked,
            np.empty(0, np.int64),
            self._version(user_id),
            updated_at,
            pending,
        )

    async def standing(
        self,
        user_id: int,
        candidate_ids: Int64,
        *,
        since: datetime | None,
        interests: list[str] | None,
        attributes: str | None = None,
        timeout_s: float,
    ) -> PairStanding:
        await self._read("standing", timeout_s, down=self.down or self.down_for_safety)
        allowed = [
            other
            for other in sorted(candidate_ids.tolist())
            if other in self.rows
            and other not in self.hidden
            and other not in self.decided.get(user_id, set())
            and frozenset({user_id, other}) not in self.separated
            and (interests is None or set(interests) & set(self.rows[other]["interests"]))
            and (attributes is None or self._meets(other, attributes))
        ]
        changed = [other for other in allowed if since is None or self.updated_at.get(other, START) > since]
        return PairStanding(
            np.array(allowed, dtype=np.int64),
            columns([self.rows[other] for other in changed]),
            self._version(user_id),
            self.updated_at.get(user_id, START) if user_id in self.rows else None,
        )

    async def some_visible(self, share: float, n: int, timeout_s: float, attributes: str | None = None) -> Drawn:
        await self._read("some_visible", timeout_s, down=self.down or self.down_for_safety)
        visible = [
            row
            for user_id, row in self.rows.items()
            if user_id not in self.hidden and (attributes is None or self._meets(user_id, attributes))
        ]
        return Drawn(columns(visible[:n]), np.full(len(visible[:n]), self.drawn_with, dtype=np.float32))

    async def sees(self, user_id: int, other_id: int) -> bool:
        """Answer what the relations do."""
        if self.down:
            raise StorageUnavailable("The database is away: ask again.")
        return (
            other_id in self.rows
            and other_id not in self.hidden
            and frozenset({user_id, other_id}) not in self.separated
        )

    def _meets(self, user_id: int, attributes: str) -> bool:
        own = self.rows[user_id].get("attributes", {})
        return all(
            wish["name"] in own
            and (
                not wish["traits"]
                or any(own[wish["name"]] is one or own[wish["name"]] == one for one in wish["traits"])
            )
            and (wish["gte"] is None or own[wish["name"]] >= wish["gte"])
            and (wish["lte"] is None or own[wish["name"]] <= wish["lte"])
            and (wish["among"] is None or own[wish["name"]] in wish["among"])
            for wish in json.loads(attributes)
        )

    def _apart(self, user_id: int) -> set[int]:
        return {other for pair in self.separated if user_id in pair for other in pair}

    def _version(self, user_id: int) -> int:
        return len(self.decided.get(user_id, set())) + len(self._apart(user_id))

    async def _read(self, what: str, timeout_s: float, *, down: bool) -> None:
        self.asked.append(what)
        await asyncio.sleep(timeout_s if what in self.slow else 0)
        if down or what in self.slow:
            raise EligibilityUnknown(Reason.ELIGIBILITY_UNAVAILABLE, "Postgres cannot be read.")


@dataclass
class MemoryFeatures:
    """An online store that knows nobody, or does not answer."""

    down: bool = False
    reads: int = 0

    async def read(self, user_id: int, timeout_s: float) -> People:
        self.reads += 1
        if self.down:
            raise FeaturesUnavailable("The online feature store does not answer.")
        return People.empty()


@dataclass
class Town:
    """A recommender over people 1..n, and everything that a test may break."""

    settings: Settings
    clock: Clock
    people: MemoryPeople
    features: MemoryFeatures = field(default_factory=MemoryFeatures)
    release: Release | None = None
    no_release: Degraded | None = None
    population: Population | None = None
    recent_likes: RecentLikes = field(default_factory=RecentLikes.nobody)
    challenger: Release | None = None
    newcomers: dict[str, Newcomers] = field(default_factory=dict)
    since: datetime | None = START
    features_lost: bool = False
    slots: Mapping[str, int] = field(default_factory=dict)
    assign: Callable[[int, Variant | None], Assignment] = champion_only
    cache: AnswerCache | None = None
    impressions: list[Impression] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def ladder(self) -> tuple[Strategy, ...]:
        """Return the strategies, with the same chance in each."""
        return ladder(self.settings, self.people, np.random.default_rng(3))

    def unlogged(self) -> UnloggedLists:
        """Wire the lists of guests and of similar people on this town."""
        return UnloggedLists(
            settings=self.settings,
            people=self.people,
            features=self.features,
            world=self.state,
            ladder=self.ladder(),
            sees=self.people.sees,
            rng=np.random.default_rng(3),
            metrics=serving_metrics(),
            clock=self.clock,
        )

    def state(self) -> ServingState:
        """Return what a request captures."""
        return ServingState(
            self.release,
            self.no_release,
            self.population,
            self.recent_likes,
            self.slots,
            self.since,
            self.challenger,
            newcomers=self.newcomers,
            features_lost=self.features_lost,
        )

    def recommender(self) -> Recommender:
        """Wire a recommender on this town."""
        return Recommender(
            settings=self.settings,
            people=self.people,
            features=self.features,
            world=self.state,
            ladder=self.ladder(),
            log_impressions=self.impressions.extend,
            log_answers=self.answers.extend,
            metrics=serving_metrics(),
            clock=self.clock,
            assign=self.assign,
            cache=self.cache,
        )


def make_town(
    settings: Settings,
    clock: Clock,
    n: int = 40,
    release: Release | None = None,
    attributes: Callable[[int], dict[str, Any]] = lambda _user_id: {},
    without_slot: Collection[str] = (),
) -> Town:
    """Build a town of n people whose population is loaded; no exploration, so that orders are known.

    Every name of a number among their `attributes` by id has a slot, except those `without_slot`.
    """
    rows = {user_id: person(user_id, attributes=attributes(user_id)) for user_id in range(1, n + 1)}
    given = [row["attributes"] for row in rows.values()]
    names = sorted({name for own in given for name, value in own.items() if type(value) in {int, float}})
    slots = {name: slot for slot, name in enumerate(names) if name not in without_slot}
    serving = settings.serving.model_copy(update={"exploration_share": 0.0, "deadline_ms": 5000})
    return Town(
        settings.model_copy(update={"serving": serving}),
        clock,
        MemoryPeople(rows),
        release=release,
        population=Population.build(people_of(list(rows.values()), slots), GivenTraits.of(list(rows), given, slots)),
        slots=slots,
    )
