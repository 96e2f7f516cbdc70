"""What serving reads of people who take things back, held against what training sees of them."""

from datetime import timedelta
from typing import Any

import numpy as np
import psycopg

from feature_repo.kinds import DECISIONS, SEPARATIONS, Kind, code
from feature_repo.kinds import codes as codes_of
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.features.events import Events
from pipelines.ranking.requests import PastRequests
from registry.scoring.recent_likes import KEPT
from serving.people.people_store import PostgresPeople
from serving.snapshots import stored_likes
from tests.on_pool import on_pool
from tests.serving_fakes import closed_breaker, people_of, person
from tests.serving_world import START, insert_people


def test_serving_and_training_read_the_same_of_people_who_take_things_back(
    connection: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings
) -> None:
    n, rng = 10, np.random.default_rng(11)
    insert_people(connection, n)
    kinds = [*Kind, Kind.LIKE, Kind.LIKE, Kind.UNLIKE, Kind.UNBLOCK, Kind.UNBLOCK]
    rows = [(*rng.choice(n, 2, replace=False).tolist(), kinds[rng.integers(len(kinds))]) for _ in range(160)]
    rows = [row for row in rows if row[2] not in {Kind.REPORT, Kind.PASS} or rng.random() < 0.3]
    connection.cursor().executemany(
        "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at)"
        " values (gen_random_uuid(), %s, %s, %s, %s)",
        [(a + 1, b + 1, kind, START + timedelta(minutes=minute)) for minute, (a, b, kind) in enumerate(rows)],
    )
    connection.commit()
    actor, target = (np.array([row[side] for row in rows], dtype=np.int32) for side in (0, 1))
    start_us, codes = int(START.timestamp()) * 1_000_000, np.array([code(kind) for *_, kind in rows], dtype=np.int8)
    at_us = start_us + np.arange(len(rows), dtype=np.int64) * 60_000_000
    user_ids = np.arange(1, n + 1)
    events = Events(user_ids, actor, target, codes, at_us)
    past = PastRequests(people_of([person(user_id) for user_id in user_ids]), events, pending_likes=True)

    async def all_of_them(pool: Any) -> list[Any]:
        people = PostgresPeople(pool, closed_breaker(), pending_likes=True)
        return [
            (
                await people.requester(asker, 5.0),
                await people.standing(asker, user_ids, since=START, interests=None, timeout_s=5.0),
            )
            for asker in user_ids.tolist()
        ]

    again = 0
    for position, (row, standing) in enumerate(on_pool(endpoints.database_url, settings, all_of_them)):
        then = past.at(position, int(at_us[-1]) + 1)
        mine = np.unique(target[(actor == position) & np.isin(codes, codes_of((*DECISIONS, *SEPARATIONS)))]) + 1
        again += int((~np.isin(mine, then.excluded)).sum())
        assert row.excluded.tolist() == sorted({*then.excluded.tolist(), position + 1})
        assert standing.allowed.tolist() == [other for other in user_ids if other not in then.excluded.tolist()]
        assert row.liked.tolist() == then.liked.tolist()
        assert row.passed.tolist() == then.passed.tolist()
        assert row.pending.waiting.tolist() == then.waiting.tolist()
    expected = past.history.last_before(np.arange(n), np.full(n, int(at_us[-1]) + 1), KEPT)
    expected = np.where(expected >= 0, expected + 1, -1)
    for likes in (stored_likes.everybody(connection), stored_likes.of(connection, user_ids.tolist())):
        assert likes.latest(user_ids, KEPT).tolist() == expected.tolist()
    assert again >= 5  # people whom somebody had decided on or blocked may be shown to them again
