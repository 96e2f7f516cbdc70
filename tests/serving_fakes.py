# ruff: noqa: ARG002 fakes take what the real ones take
"""Hand-written fakes of what serving depends on: Postgres, the online store, and a world in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from feature_repo.people import People
from feature_repo.population import Population
from feature_repo.transforms import profile_vectors
from infra.clock import FixedClock
from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.errors import Degraded, EligibilityUnknown, FeaturesUnavailable
from serving.impressions import Impression
from serving.levels import ladder
from serving.people_store import PROFILE_COLUMNS, PendingLikes, RequesterRow, Rows
from serving.reasons import Reason
from serving.recent_likes import RecentLikes
from serving.recommend import Recommender, World
from tests.serving_world import GHENT, START


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


def people_of(rows: Sequence[dict[str, Any]]) -> People:
    """Return rows as feature rows, without activity."""
    packed = columns(rows).columns
    return People.build(packed["user_id"], profile=profile_vectors(packed))


@dataclass
class MemoryPeople:
    """A PeopleStore over rows in memory; `down` and `down_for_safety` make it fail like a database would."""

    rows: dict[int, dict[str, Any]]
    decided: dict[int, set[int]] = field(default_factory=dict)
    separated: set[frozenset[int]] = field(default_factory=set)
    liked: dict[int, list[int]] = field(default_factory=dict)
    pending: dict[int, PendingLikes] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    down: bool = False
    down_for_safety: bool = False

    async def requester(self, user_id: int, timeout_s: float) -> RequesterRow | None:
        self._check(down=self.down)
        if user_id not in self.rows:
            return None
        apart = {other for pair in self.separated if user_id in pair for other in pair}
        excluded = np.array(sorted({user_id, *self.decided.get(user_id, set()), *apart}), dtype=np.int64)
        liked = np.array(self.liked.get(user_id, []), dtype=np.int64)
        pending = self.pending.get(user_id, PendingLikes.unknown())
        return RequesterRow(columns([self.rows[user_id]]), {}, excluded, liked, np.empty(0, np.int64), pending)

    async def still_allowed(
        self, user_id: int, candidate_ids: Sequence[int], interests: list[str] | None, timeout_s: float
    ) -> Rows:
        self._check(down=self.down or self.down_for_safety)
        return columns(
            [
                self.rows[other]
                for other in candidate_ids
                if other in self.rows
                and other not in self.hidden
                and other not in self.decided.get(user_id, set())
                and frozenset({user_id, other}) not in self.separated
                and (interests is None or set(interests) & set(self.rows[other]["interests"]))
            ]
        )

    async def some_visible(self, share: float, n: int, timeout_s: float) -> Rows:
        self._check(down=self.down or self.down_for_safety)
        return columns([row for user_id, row in self.rows.items() if user_id not in self.hidden][:n])

    @staticmethod
    def _check(*, down: bool) -> None:
        if down:
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
    clock: FixedClock
    people: MemoryPeople
    features: MemoryFeatures = field(default_factory=MemoryFeatures)
    release: Release | None = None
    no_release: Degraded | None = None
    population: Population | None = None
    recent_likes: RecentLikes = field(default_factory=RecentLikes.nobody)
    impressions: list[Impression] = field(default_factory=list)

    def recommender(self) -> Recommender:
        """Wire a recommender on this town."""
        return Recommender(
            settings=self.settings,
            people=self.people,
            features=self.features,
            world=lambda: World(self.release, self.no_release, self.population, self.recent_likes, {}),
            ladder=ladder(self.settings, self.people, np.random.default_rng(3)),
            log_impressions=self.impressions.extend,
            metrics=serving_metrics(),
            clock=self.clock,
        )


def make_town(settings: Settings, clock: FixedClock, n: int = 40, release: Release | None = None) -> Town:
    """Build a town of n people whose population is loaded; no exploration, so that orders are known."""
    rows = {user_id: person(user_id) for user_id in range(1, n + 1)}
    serving = settings.serving.model_copy(update={"exploration_share": 0.0, "deadline_ms": 5000})
    return Town(
        settings.model_copy(update={"serving": serving}),
        clock,
        MemoryPeople(rows),
        release=release,
        population=Population.build(people_of(list(rows.values()))),
    )
