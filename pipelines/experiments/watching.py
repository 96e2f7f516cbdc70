"""The figures that the guard judges, summed in Postgres over a bounded window: a row of sums, however many answers."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql

from feature_repo.kinds import LIKES, listed
from pipelines.experiments.clustered import Sums
from pipelines.experiments.guardrails import Finding, Guardrails, judge
from pipelines.experiments.reading import ERRORS

MAX_SAMPLED: Final = 2_000
"""Of each side, so many of the latest answers tell the like rate: each is a look at ten showings."""
DEPENDENCIES: Final = ("eligibility_unavailable", "population_unavailable")
"""The reasons of an answer that blame what every release depends on: Postgres, or the snapshot that is read from it."""
OUTAGE_SHARE: Final = 0.05
"""A minute in which so many answers have such a reason tells nothing of a release: its others are slow or late, too."""
DAY: Final = timedelta(days=1)
_ARMS = sql.SQL("""
    select arm = 'challenger' as subject, * from duet.answers
     where experiment = %(name)s and arm in ('champion', 'challenger')
       and answered_at >= %(since)s and answered_at < %(until)s
""")
_RELEASES = sql.SQL("""
    select release = %(release)s as subject, * from duet.answers
     where arm = 'champion'
       and ((release = %(release)s and answered_at >= %(since)s and answered_at < %(until)s)
         or (release = %(before)s and answered_at >= %(before_since)s and answered_at < %(before_until)s))
""")
_TELLING = sql.SQL("""
    select told.* from (
        select every.*, avg(coalesce(reason = any(%(dependencies)s), false)::int)
                   over (partition by date_trunc('minute', answered_at)) as blamed
          from ({mine}) as every
    ) as told
    where blamed < %(outage_share)s and not coalesce(reason = any(%(dependencies)s), false)
""")
_YESTERDAY = sql.SQL("""
    select count(*), count(distinct user_id), min(answered_at) from duet.answers
     where arm = 'champion' and release = %(before)s
       and answered_at >= %(before_since)s and answered_at < %(before_until)s
""")
_P95 = sql.SQL("""
    with mine as ({mine})
    select percentile_cont(0.95) within group (order by took_ms) filter (where not subject)
      from mine where not cached
""")
_SUMS = sql.SQL("""
    with mine as ({mine}), person as (
        select subject, count(*)::float8 as n, count(*) filter (where not cached)::float8 as made,
               count(*) filter (where failed or coalesce(reason = any(%(errors)s), false))::float8 as wrong,
               count(*) filter (where level > 1)::float8 as below,
               count(*) filter (where not cached and took_ms > %(slow_ms)s)::float8 as slow
          from mine group by subject, user_id
    )
    select subject, count(*), sum(n), sum(n * n),
           sum(wrong), sum(n * wrong), sum(wrong * wrong), sum(below), sum(n * below), sum(below * below),
           count(*) filter (where made > 0), sum(made), sum(made * made), sum(slow), sum(made * slow), sum(slow * slow)
      from person group by subject
""")
_LIKES = sql.SQL("""
    with mine as ({mine}), sampled as (
        (select subject, request_id, user_id from mine
          where subject and answered_at <= %(until)s - %(attribution)s order by answered_at desc limit %(most)s)
        union all
        (select subject, request_id, user_id from mine
          where not subject and answered_at <= %(until)s - %(attribution)s order by answered_at desc limit %(most)s)
    ), pairs as (
        select subject, user_id, target_id, min(shown_at) as first_at
          from sampled join duet.impressions using (request_id, user_id) group by subject, user_id, target_id
    ), judged as (
        select subject, user_id, chose and exists (
                   select from duet.pair_state(user_id, target_id, first_at + %(attribution)s) as pair
                    where pair.liked_at is not null
               ) as liked
          from pairs, lateral (select exists (
                   select from duet.interactions as mine
                    where mine.actor_id = pairs.user_id and mine.target_id = pairs.target_id
                      and mine.kind in ({likes})
                      and mine.occurred_at >= first_at and mine.occurred_at <= first_at + %(attribution)s
               ) as chose) as theirs
    ), person as (
        select subject, count(*)::float8 as n, count(*) filter (where liked)::float8 as won
          from judged group by subject, user_id
    )
    select subject, count(*), sum(n), sum(n * n), sum(won), sum(n * won), sum(won * won) from person group by subject
""")
_JUST_BEGUN: Final = timedelta(minutes=10)
_NOBODY = Sums(0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class WatchedComparison:
    """Whose answers are judged beside whose, and in which window of the watch, from 0."""

    mine: sql.Composed
    parameters: dict[str, Any]
    window: int


def of_experiment(name: str, started_at: datetime, now: datetime, window_s: float) -> WatchedComparison:
    """Return the challenger's answers beside the champion's, in the window that is open now."""
    window = int((now - started_at).total_seconds() // window_s)
    since = started_at + timedelta(seconds=window * window_s)
    return _telling(_ARMS, {"name": name, "since": since, "until": now}, window)


def of_release(
    connection: psycopg.Connection[Any],
    release: str,
    before: str,
    promoted_at: datetime,
    now: datetime,
    *,
    rails: Guardrails,
) -> WatchedComparison:
    """Return a release's answers since its promotion beside those of the one before, in the same hours the day before.

    A release that did not serve then is compared in the same length of time before the promotion.
    """
    beside = {"before": before, "before_since": promoted_at - DAY, "before_until": min(now, promoted_at + DAY) - DAY}
    row = connection.execute(_YESTERDAY, beside).fetchone()
    since, until = promoted_at, min(now, promoted_at + DAY)
    if row is not None and row[0] >= rails.minimum_answers and row[1] >= rails.minimum_people:
        begins = max(row[2], beside["before_since"])
        if begins - beside["before_since"] > _JUST_BEGUN:  # it began to serve in the middle of these hours
            since, beside["before_since"] = begins + DAY, begins
    else:
        beside |= {"before_since": promoted_at - (now - promoted_at), "before_until": promoted_at}
    return _telling(_RELEASES, {"release": release, "since": since, "until": until, **beside}, 0)


def _telling(answers: sql.SQL, parameters: dict[str, Any], window: int) -> WatchedComparison:
    """Leave out, on both sides, what only tells that a dependency was away."""
    given = {**parameters, "dependencies": list(DEPENDENCIES), "outage_share": OUTAGE_SHARE}
    return WatchedComparison(_TELLING.format(mine=answers), given, window)


def findings_of(connection: psycopg.Connection[Any], watched: WatchedComparison, rails: Guardrails) -> list[Finding]:
    """Return what every guardrail says."""
    sums = _read(connection, watched, rails)
    return [judge(rails, rail, *sums[rail.metric], watched.window) for rail in rails.guardrails]


def _read(
    connection: psycopg.Connection[Any], watched: WatchedComparison, rails: Guardrails
) -> dict[str, tuple[Sums, Sums]]:
    slow = rails.of("slow_rate")
    row = connection.execute(_P95.format(mine=watched.mine), watched.parameters).fetchone()
    slow_ms = slow.factor * row[0] if slow is not None and row is not None and row[0] is not None else None
    given = {**watched.parameters, "errors": list(ERRORS), "slow_ms": slow_ms}
    sides = {row[0]: row[1:] for row in connection.execute(_SUMS.format(mine=watched.mine), given).fetchall()}
    found = {
        "error_rate": _both(sides, lambda r: Sums(r[0], r[1], r[3], r[2], r[4], r[5])),
        "below_full_rate": _both(sides, lambda r: Sums(r[0], r[1], r[6], r[2], r[7], r[8])),
        "slow_rate": _both(sides, lambda r: Sums(r[9], r[10], r[12], r[11], r[13], r[14])),
    }
    if rails.of("like_rate") is not None:
        given = {**watched.parameters, "attribution": timedelta(seconds=rails.attribution_s), "most": MAX_SAMPLED}
        sides = {
            row[0]: row[1:]
            for row in connection.execute(_LIKES.format(mine=watched.mine, likes=listed(LIKES)), given).fetchall()
        }
        found["like_rate"] = _both(sides, lambda r: Sums(r[0], r[1], r[3], r[2], r[4], r[5]))
    return found


def _both(sides: dict[bool, tuple[Any, ...]], of: Any) -> tuple[Sums, Sums]:
    subject, other = (of(sides[side]) if side in sides else _NOBODY for side in (True, False))
    return subject, other
