"""The ground that releases are judged on: what an embedding did not learn from, it is not refreshed with either."""

from datetime import date
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd

from feature_repo.people import People
from feature_repo.transforms import CONTENT_WIDTH, profile_vectors
from pipelines.evaluation.config import EvaluationConfig
from pipelines.evaluation.ground import Ground, windows_between
from pipelines.features.events import LIKE, PASS, Events
from registry.embedding import Embedding, EmbeddingParameters

DAY_US = 86_400_000_000
T0 = 1_750_000_000_000_000
IDS = np.array([10, 20, 30], dtype=np.int64)


def ground() -> Ground:
    """Person 10 liked 20 long ago, passed on 30 after T0, and decides once more after T1."""
    at = np.array([T0 - 30 * DAY_US, T0 + 1, T0 + DAY_US], dtype=np.int64)
    actor, target = np.zeros(3, np.int32), np.array([1, 2, 1], np.int32)
    events = Events(IDS, actor, target, np.array([LIKE, PASS, LIKE], np.int8), at)
    users = pd.DataFrame(
        {
            "user_id": IDS,
            "birth_date": [date(1995, 1, 1)] * 3,
            "gender": ["woman", "man", "man"],
            "seeking": [["man"], ["woman"], ["woman"]],
            "interests": [[]] * 3,
            "visible": [True] * 3,
        }
    )
    people = People.build(IDS, profile=profile_vectors(users))
    as_of = pd.Timestamp(T0 + 2 * DAY_US, unit="us", tz="UTC")
    pointer = SimpleNamespace(t0=None)
    snapshot = cast(
        "Any",
        SimpleNamespace(people=people, events=events, users=users, as_of=as_of, interactions_pointer=pointer),
    )
    return Ground.of(snapshot, windows_between(snapshot, T0, T0 + 2))


def taste_of_the_first(learned_after_us: int | None) -> np.ndarray[Any, Any]:
    """Return P of person 10 where people 20 and 30 point along one axis each."""
    sides = np.eye(3, 2, k=-1, dtype=np.float32)
    maps = np.zeros((CONTENT_WIDTH, 4), np.float32)
    embedding = Embedding(IDS, sides, sides, maps, np.zeros(4, np.float32), EmbeddingParameters())
    scene = ground().scene(
        embedding,
        cast("Any", None),
        EvaluationConfig(),
        learned_after_us=learned_after_us,
        fitted_us=T0,
        last_likes=5,
        pending_likes=False,
    )
    return scene.factors.chooser[0]


def test_a_decision_from_before_the_window_of_the_fit_moves_no_factor() -> None:
    assert taste_of_the_first(None)[0] > 0.1
    assert taste_of_the_first(T0 - DAY_US)[0] == 0.0
