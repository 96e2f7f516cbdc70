"""A world in which everybody may be shown other people than anybody else, with rules that need none of our code.

Ten places far apart, twelve women and twelve men in each, who seek each other and nobody farther than 50 km. Everybody
has passed on two people and blocked one; one woman and one man of each place are hidden; every eighth accepts only
those below 33, which half of the people are. The ranker's probability depends on the activity of the one who asks, so
an answer made with somebody else's features shows.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import xgboost

from feature_repo.layout import ACTIVITY, VIEWS
from feature_repo.store import apply_catalogue, materialize, open_feature_store
from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.settings import Settings
from registry.models.ranker import Ranker
from tests.feature_rows import put_features
from tests.serving_world import insert_person, interact, remember_town

PLACES = 10
OF_ONE_PLACE = 24
PEOPLE = range(1, PLACES * OF_ONE_PLACE + 1)
RANKED_BY = ("score_forward", "requester_likes_sent_7d")
YOUNG, OLD = 25, 45
LIMIT = 50
_PASSES = list(combinations(range(OF_ONE_PLACE // 2), 2))


def is_woman(user_id: int) -> bool:
    return user_id % 2 == 1


def place(user_id: int) -> int:
    return (user_id - 1) // OF_ONE_PLACE


def number(user_id: int) -> int:
    """Return 0..11: which woman or man of the place."""
    return (user_id - 1) % OF_ONE_PLACE // 2


def age(user_id: int) -> int:
    return YOUNG if number(user_id) % 2 else OLD


def oldest_accepted(user_id: int) -> int:
    return 33 if user_id % 8 == 0 else 99


def others(user_id: int) -> list[int]:
    """Return those of the other gender at the same place, by number."""
    first = place(user_id) * OF_ONE_PLACE + 1
    return list(range(first + is_woman(user_id), first + OF_ONE_PLACE, 2))


def passed_on(user_id: int) -> list[int]:
    there = others(user_id)
    return [there[k] for k in _PASSES[(number(user_id) * 5 + user_id % 2) % len(_PASSES)]]


def blocked_by(user_id: int) -> int:
    """Return whom this person has blocked."""
    return others(user_id)[(number(user_id) + 3) % 12]


def likes_sent(user_id: int) -> float:
    return float(user_id * 7 % 16)


@dataclass
class Rules:
    """Who may be shown to whom, as anybody would say it."""

    hidden: set[int] = field(default_factory=lambda: {user_id for user_id in PEOPLE if number(user_id) == 4})
    decided: dict[int, set[int]] = field(
        default_factory=lambda: {user_id: set(passed_on(user_id)) for user_id in PEOPLE}
    )
    apart: set[frozenset[int]] = field(
        default_factory=lambda: {frozenset((user_id, blocked_by(user_id))) for user_id in PEOPLE}
    )

    def eligible(self, asks: int, shown: int) -> bool:
        return (
            shown in self.decided
            and asks != shown
            and place(asks) == place(shown)
            and is_woman(asks) != is_woman(shown)
            and age(shown) <= oldest_accepted(asks)
            and age(asks) <= oldest_accepted(shown)
            and shown not in self.hidden
            and shown not in self.decided[asks]
            and frozenset((asks, shown)) not in self.apart
        )

    def everybody(self, asks: int) -> set[int]:
        """Return all who may be shown to somebody."""
        return {shown for shown in PEOPLE if self.eligible(asks, shown)}


def settle(connection: psycopg.Connection[Any], settings: Settings, endpoints: Endpoints, scratch: Path) -> Rules:
    """Put the village into empty tables, its features into the online store, its release beside the service."""
    year = datetime.now(UTC).year
    for user_id in PEOPLE:
        insert_person(
            connection,
            user_id,
            birth_date=date(year - age(user_id) - 1, 7, 1),
            latitude=40.0 + place(user_id),
            longitude=3.0 + 0.001 * number(user_id),
            max_distance_km=50.0,
            age_max=oldest_accepted(user_id),
            visible=number(user_id) != 4,
        )
    connection.commit()
    for user_id in PEOPLE:
        interact(connection, user_id, passed_on(user_id), "pass")
        interact(connection, user_id, blocked_by(user_id), "block")
    _fill_online_store(connection, settings, endpoints)
    remember_town(settings.data_dir, PEOPLE, scratch, village_ranker())
    return Rules()


def _fill_online_store(connection: psycopg.Connection[Any], settings: Settings, endpoints: Endpoints) -> None:
    store = open_feature_store(settings, endpoints)
    apply_catalogue(store)
    now = SystemClock().now()
    for user_id in PEOPLE:
        for layout in VIEWS:
            known = {"likes_sent_7d": likes_sent(user_id)} if layout is ACTIVITY else {}
            put_features(connection, layout, user_id, now, **known)
    connection.commit()
    materialize(store, SystemClock().now())


def village_ranker() -> Ranker:
    """Learn that P(like) grows with the forward score and, in steps that can be told apart, with the activity."""
    rng = np.random.default_rng(3)
    n = 4000
    features = np.column_stack([rng.uniform(0, 4, n), rng.integers(0, 16, n)]).astype(np.float32)
    chance = 0.05 + 0.2 * features[:, 0] / 4 + 0.7 * features[:, 1] / 15
    labels = (rng.uniform(size=n) < chance).astype(np.float32)
    matrix = xgboost.DMatrix(features, labels, feature_names=list(RANKED_BY))
    parameters = {"objective": "binary:logistic", "max_depth": 5, "seed": 1, "nthread": 1}
    return Ranker.from_booster(xgboost.train(parameters, matrix, 60), RANKED_BY, canary_features=features)
