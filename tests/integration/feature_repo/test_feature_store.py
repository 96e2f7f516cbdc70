"""Feast end to end: the same numbers offline and online, never the future, only what is new is written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.layout import (
    ACTIVITY,
    ATTRIBUTES,
    CONTEXT_COLUMNS,
    EVIDENCE_COLUMNS,
    PROFILE,
    RANKING_FEATURES,
    RECIPROCITY,
    TASTE_COLUMNS,
)
from feature_repo.store import PersonReader, historical_ranking_features, materialize, read_people
from feature_repo.transforms import PairContext, ranking_features, ranking_features_both

T = datetime(2026, 3, 1, tzinfo=UTC)


def pairs(rows: list[tuple[int, int, datetime]], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rows, columns=["requester_id", "candidate_id", "event_timestamp"])
    for column in CONTEXT_COLUMNS:
        frame[column] = rng.random(len(rows)).astype(np.float32)
    return frame


def context(frame: pd.DataFrame) -> PairContext:
    return PairContext(
        *(frame[name].to_numpy(np.float32) for name in TASTE_COLUMNS),
        evidence=frame[list(EVIDENCE_COLUMNS)].to_numpy(np.float32),
    )


def fill(put: Any, rng: np.random.Generator) -> None:
    for user_id in (1, 2, 3, 40):
        for day in (-50, -3):
            put(
                PROFILE,
                user_id,
                T + timedelta(days=day),
                birth_day=rng.integers(5000, 13000),
                gender=1 + user_id % 2,
                latitude=rng.uniform(-60, 60),
                longitude=rng.uniform(-180, 180),
                max_distance_km=80,
                age_min=20,
                age_max=45,
                created_day=20000.25,
                interests_03=int(rng.integers(0, 2**24)),
            )
        put(ATTRIBUTES, user_id, T - timedelta(days=3), attribute_02=rng.normal(), attribute_07=rng.normal())
        if user_id != 3:  # somebody without any activity
            for day in (-20, -2):
                put(
                    ACTIVITY,
                    user_id,
                    T + timedelta(days=day),
                    likes_sent_7d=rng.integers(0, 9),
                    last_active_day=20500.5 + day,
                )
            put(RECIPROCITY, user_id, T - timedelta(days=2), matches=rng.integers(0, 9), match_rate=rng.random())


def test_a_training_row_and_the_serving_row_of_the_same_instant_are_bit_equal(store: Any, put: Any) -> None:
    fill(put, np.random.default_rng(1))
    frame = pairs([(1, 2, T), (1, 3, T), (1, 40, T), (3, 1, T), (2, 40, T)])
    trained = historical_ranking_features(store, frame, chunk=2)
    materialize(store, T)
    people = read_people(store, [1, 2, 3, 40, 99])
    assert people.user_ids.tolist() == [1, 2, 3, 40]
    at = T.timestamp()
    served = np.concatenate(
        [
            ranking_features(
                people.take(people.positions([requester])),
                people.take(people.positions([candidate])),
                context(frame).take([row]),
                at,
            )
            for row, (requester, candidate) in enumerate(zip(frame["requester_id"], frame["candidate_id"], strict=True))
        ]
    )
    assert trained.dtype == served.dtype == np.float32
    np.testing.assert_array_equal(trained.view(np.uint32), served.view(np.uint32))
    together, _ = ranking_features_both(
        people.take(people.positions([1])),
        people.take(people.positions([2, 3, 40])),
        context(frame).take([0, 1, 2]),
        at,
    )
    np.testing.assert_array_equal(trained[:3].view(np.uint32), together.view(np.uint32))
    idle = RANKING_FEATURES.index("candidate_idle_days")
    assert np.isnan(trained[1, idle])
    assert np.isfinite(trained[0, idle])


def test_a_feature_from_the_future_is_not_seen(store: Any, put: Any) -> None:
    put(ACTIVITY, 2, T - timedelta(days=1), likes_received_7d=3)
    put(ACTIVITY, 2, T + timedelta(microseconds=1), likes_received_7d=1000)
    column = RANKING_FEATURES.index("candidate_likes_received_7d")
    rows = historical_ranking_features(
        store, pairs([(1, 2, T), (1, 2, T + timedelta(seconds=1)), (1, 2, T - timedelta(2))])
    )
    assert rows[:, column].tolist() == [3.0, 1000.0, 0.0]


def test_materialising_again_writes_only_what_came_since(store: Any, put: Any) -> None:
    put(ACTIVITY, 1, T - timedelta(days=2), likes_sent_7d=1)
    put(ACTIVITY, 2, T - timedelta(days=2), likes_sent_7d=2)
    steps: list[tuple[str, int, int]] = []
    first = materialize(store, T - timedelta(days=1), progress=lambda *step: steps.append(step))
    assert first.rows == 2
    assert steps == [("user_activity", 2, 2)]
    put(ACTIVITY, 1, T, likes_sent_7d=7)
    second = materialize(store, T)
    assert second.rows == 1
    assert materialize(store, T).rows == 0
    people = read_people(store, [1, 2])
    assert people.activity[:, ACTIVITY.index("likes_sent_7d")].tolist() == [7.0, 2.0]
    assert second.rows_per_s > 0


def test_activity_older_than_its_ttl_counts_as_missing_on_both_paths(store: Any, put: Any) -> None:
    put(ACTIVITY, 2, T - timedelta(days=401), likes_received_7d=3)
    put(PROFILE, 2, T - timedelta(days=4000), birth_day=9000)
    row = historical_ranking_features(store, pairs([(1, 2, T)]))[0]
    assert row[RANKING_FEATURES.index("candidate_likes_received_7d")] == 0
    assert np.isfinite(row[RANKING_FEATURES.index("age_candidate")])
    materialize(store, T)
    person = PersonReader(store).read(2, T.timestamp())
    assert person is not None
    assert person.activity[0, ACTIVITY.index("likes_received_7d")] == 0
    assert person.profile[0, PROFILE.index("birth_day")] == 9000
    assert PersonReader(store).read(5) is None
