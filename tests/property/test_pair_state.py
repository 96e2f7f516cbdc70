"""Postgres and the arrays say the same of every pair at every instant."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.kinds import KINDS, UNDOS, Kind
from feature_repo.transforms.pairs import Intervals, matches, separations, standing_likes, standing_passes

START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = 3
LAST = 6
"""Few instants, so that many interactions fall into the same microsecond."""
pairs = st.tuples(st.integers(0, PEOPLE - 1), st.integers(1, PEOPLE - 1)).map(lambda p: (p[0], (p[0] + p[1]) % PEOPLE))
kinds = st.sampled_from([*Kind, Kind.LIKE, Kind.BLOCK, Kind.UNLIKE, Kind.UNBLOCK])
rows = st.lists(st.tuples(pairs, kinds, st.integers(0, LAST)), max_size=14)
_STATES = """
    select one, other, place, liked_at, liked_back_at, matched_at, passed_at, separated_at
      from generate_series(1, %(people)s) as one, generate_series(1, %(people)s) as other,
           generate_series(0, %(last)s) as place,
           duet.pair_state(one, other, %(start)s + place * interval '1 microsecond')
     where one <> other
"""


def since(intervals: Intervals, a: int, b: int, at_us: int) -> datetime | None:
    """Return the beginning of the interval that holds of a pair at an instant."""
    there = (intervals.actor == a) & (intervals.target == b) & (intervals.began_us <= at_us)
    there &= at_us < intervals.ended_us
    return START + timedelta(microseconds=int(intervals.began_us[there].min())) if there.any() else None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(rows=rows)
def test_the_statement_and_the_arrays_agree(
    connection: psycopg.Connection[Any], rows: list[tuple[tuple[int, int], Kind, int]]
) -> None:
    actor, target = (np.array([pair[side] for pair, _, _ in rows], dtype=np.int64) for side in (0, 1))
    kind = np.array([KINDS.index(kind) for _, kind, _ in rows], dtype=np.int8)
    at_us = np.array([at for _, _, at in rows], dtype=np.int64)
    events = actor, target, kind, at_us
    likes, passes, both, apart = (
        standing_likes(*events),
        standing_passes(*events),
        matches(*events),
        separations(*events),
    )
    connection.execute("insert into duet.users (user_id) select generate_series(1, %s)", (PEOPLE,))
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at)"
            " values (%s, %s, %s, %s, %s)",
            [
                (UUID(int=number), a + 1, b + 1, kind, START + timedelta(microseconds=at))
                for number, ((a, b), kind, at) in enumerate(rows)
            ],
        )
    undone = {
        (one, *row)
        for one in range(1, PEOPLE + 1)
        for row in connection.execute("select * from duet.undone(%s)", (one,))
    }
    found = connection.execute(_STATES, {"people": PEOPLE, "last": LAST, "start": START}).fetchall()
    connection.rollback()
    assert len(found) == PEOPLE * (PEOPLE - 1) * (LAST + 1)
    for one, other, place, liked_at, liked_back_at, matched_at, passed_at, separated_at in found:
        a, b = one - 1, other - 1
        low, high = min(a, b), max(a, b)
        assert liked_at == since(likes, a, b, place)
        assert liked_back_at == since(likes, b, a, place)
        assert matched_at == since(both, low, high, place)
        assert separated_at == since(apart, low, high, place)
        assert (passed_at is None) == (since(passes, a, b, place) is None)
        if place == LAST and any(
            (mine == (a, b) and what in UNDOS) or (mine == (b, a) and what is Kind.UNBLOCK) for mine, what, _ in rows
        ):
            is_open = liked_at is None and passed_at is None and separated_at is None
            undone.remove((one, other, is_open, liked_at is not None, liked_back_at is not None))
    assert not undone
