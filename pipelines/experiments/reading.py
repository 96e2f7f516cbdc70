"""What Postgres knows of an experiment: its last steady stretch, answers per person, and what showing people led to.

A stretch ends with every change of share or state: only within one does each person belong to one arm, so people,
rates and the sample ratio are all read within the last one. Whoever was nevertheless served by both arms (while
workers learnt of a change) is left out and counted.

A pair of people counts once, from its first showing, and only when its attribution window is over: otherwise an arm
that grew lately would look worse. What stands at the end of the window counts: a like that was not taken back by a
pass, and a match with somebody whom the requester liked within the window.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from feature_repo.kinds import LIKES, listed
from pipelines.experiments.clustered import Floats
from pipelines.experiments.counterfactual import Showings
from pipelines.experiments.errors import NothingToReport
from registry.contracts import PRODUCTION, STAGE_ALIASES, STAGING
from registry.errors import NoSuchExperiment
from registry.experiments.table import (
    SHADOW_VARIANT,
    ExperimentState,
    experiment_events,
    list_experiments,
    shadow_request_id,
)

CHAMPION: Final = STAGE_ALIASES[PRODUCTION]
CHALLENGER: Final = STAGE_ALIASES[STAGING]
SHADOW: Final = SHADOW_VARIANT
ERRORS: Final = ("challenger_failed", "retrieval_failed", "ranking_failed")
"""The reasons of an answer that blame the release of its arm."""
MAX_ANSWERS: Final = 400_000
"""Of a long experiment, so many of the latest answers tell levels, errors and latency."""
MAX_SHOWINGS: Final = 200_000
"""And so many of the champion's latest showings tell what the shadow would have reached."""

_ARMS = sql.SQL("""
    with mine as (
        select user_id, min(arm) as arm, count(distinct arm) as arms from duet.answers
         where experiment = %(name)s and answered_at >= %(since)s and answered_at < %(until)s
           and arm in ('champion', 'challenger')
         group by user_id
    )
    select count(*) filter (where arms = 1 and arm = 'champion'),
           count(*) filter (where arms = 1 and arm = 'challenger'),
           count(*) filter (where arms > 1)
      from mine
""")
_ANSWERS = sql.SQL("""
    select user_id, arm, level, failed or coalesce(reason = any(%(errors)s), false), cached, took_ms, variant = arm,
           coalesce(release, 'none')
      from duet.answers
     where experiment = %(name)s and answered_at >= %(since)s and answered_at < %(until)s
     order by answered_at desc limit %(most)s
""")
_JUDGED = sql.SQL("""judged as (
        select pairs.*, exists (
                   select from duet.interactions as mine
                    where mine.actor_id = user_id and mine.target_id = pairs.target_id and mine.kind in ({likes})
                      and mine.occurred_at >= first_at and mine.occurred_at <= first_at + %(window)s
               ) as chose
          from pairs
    ), states as materialized (
        select user_id, target_id, pair.*
          from judged, duet.pair_state(user_id, target_id, first_at + %(window)s) as pair where chose
    )""").format(likes=listed(LIKES))
"""What became of `pairs` (user_id, target_id, first_at) within the window: `judged`, and the `states` of the chosen."""
_OUTCOMES = sql.SQL("""
    with served as (
        select request_id, user_id, arm from duet.answers
         where experiment = %(name)s and answered_at >= %(since)s and answered_at < %(until)s
           and arm in ('champion', 'challenger')
    ), steady as (
        select user_id from served group by user_id having count(distinct arm) = 1
    ), pairs as (
        select user_id, arm, target_id, min(shown_at) as first_at
          from served join steady using (user_id) join duet.impressions using (request_id, user_id)
         where shown_at >= %(since)s and shown_at < %(until)s
         group by user_id, arm, target_id
        having min(shown_at) + %(window)s <= %(until)s
    ), {judged}, followed as (
        select judged.*, liked_at is not null as liked, matched_at is not null as matched
          from judged left join states using (user_id, target_id)
    )
    select user_id, arm = 'challenger',
           least(floor(%(looks)s * extract(epoch from first_at + %(window)s - %(since)s)
                       / extract(epoch from %(until)s - %(since)s)), %(looks)s - 1)::int,
           count(*), count(*) filter (where liked), count(*) filter (where matched)
      from followed group by 1, 2, 3
""").format(judged=_JUDGED)
_SHOWINGS = sql.SQL("""
    with shadowed as (
        select distinct user_id from duet.answers
         where experiment = %(name)s and answered_at >= %(since)s and answered_at < %(until)s and arm = 'shadow'
    ), shown as (
        select distinct on (user_id, target_id)
               user_id, target_id, request_id, position, propensity, shown_at as first_at
          from duet.answers join shadowed using (user_id) join duet.impressions using (request_id, user_id)
         where experiment = %(name)s and answered_at >= %(since)s and answered_at < %(until)s
           and arm = 'champion' and answers.variant = 'champion' and not cached
         order by user_id, target_id, shown_at
    ), pairs as (
        select * from shown where first_at + %(window)s <= %(until)s order by first_at desc limit %(most)s
    ), {judged}
    select user_id, target_id, request_id, position, propensity, liked_at is not null, matched_at is not null
      from judged left join states using (user_id, target_id) order by request_id, position
""").format(judged=_JUDGED)
_SHADOWS = """
    select request_id, position, target_id from duet.impressions where request_id = any(%s)
"""


@dataclass(frozen=True)
class Stretch:
    """The last time in which the share and the state of an experiment did not change."""

    name: str
    state: ExperimentState
    share: float
    since: datetime
    until: datetime
    running: bool


@dataclass(frozen=True)
class Answers:
    """Answers of all arms, one element each; `by_arm` says that the arm's own release answered."""

    user_ids: NDArray[np.int64]
    arms: NDArray[np.str_]
    levels: NDArray[np.int64]
    errors: NDArray[np.bool_]
    cached: NDArray[np.bool_]
    took_ms: Floats
    by_arm: NDArray[np.bool_]
    releases: NDArray[np.str_]


@dataclass(frozen=True)
class Outcomes:
    """What came of showing people: one element for each person and look; `looks` counts up from 0."""

    user_ids: NDArray[np.int64]
    challenged: NDArray[np.bool_]
    looks: NDArray[np.int64]
    exposures: Floats
    likes: Floats
    matches: Floats


@dataclass(frozen=True)
class PeopleCounts:
    """How many people each arm answered, and how many both did."""

    champion: int
    challenger: int
    both: int


def last_stretch(connection: psycopg.Connection[Any], name: str, now: datetime) -> Stretch:
    """Return the last steady stretch of an experiment; an empty name is the active one, else the latest changed.

    Raises NoSuchExperiment and NothingToReport.
    """
    if not name:
        known = list_experiments(connection)
        if not known:
            raise NothingToReport("No experiment was ever started: `duet experiment start NAME` starts one.")
        name = known[0].name
    events = experiment_events(connection, name)
    until = now
    running = True
    for event in reversed(events):
        if event.kind != "stop" and event.state != ExperimentState.OFF:
            return Stretch(name, ExperimentState(event.state), event.challenger_share, event.at, until, running)
        until, running = event.at, False
    raise NoSuchExperiment(f"No experiment named `{name}` was ever started: `duet experiment show` lists them.")


def read_people(connection: psycopg.Connection[Any], stretch: Stretch) -> PeopleCounts:
    """Count the people of a stretch."""
    row = connection.execute(_ARMS, _of(stretch)).fetchone()
    return PeopleCounts(*(row or (0, 0, 0)))


def read_answers(connection: psycopg.Connection[Any], stretch: Stretch, most: int = MAX_ANSWERS) -> Answers:
    """Read the latest answers of a stretch, those of the shadow among them."""
    rows = connection.execute(_ANSWERS, {**_of(stretch), "errors": list(ERRORS), "most": most}).fetchall()
    users, arms, levels, errors, cached, took_ms, by_arm, releases = zip(*rows, strict=True) if rows else ((),) * 8
    return Answers(
        np.array(users, dtype=np.int64),
        np.array(arms, dtype=np.str_),
        np.array(levels, dtype=np.int64),
        np.array(errors, dtype=np.bool_),
        np.array(cached, dtype=np.bool_),
        np.array(took_ms, dtype=np.float64),
        np.array(by_arm, dtype=np.bool_),
        np.array(releases, dtype=np.str_),
    )


def read_outcomes(connection: psycopg.Connection[Any], stretch: Stretch, window: timedelta, looks: int) -> Outcomes:
    """Read what came of the showings of a stretch, by person and by which of `looks` equal steps they were known."""
    rows = connection.execute(_OUTCOMES, {**_of(stretch), "window": window, "looks": looks}).fetchall()
    users, challenged, places, exposures, likes, matches = zip(*rows, strict=True) if rows else ((),) * 6
    return Outcomes(
        np.array(users, dtype=np.int64),
        np.array(challenged, dtype=np.bool_),
        np.array(places, dtype=np.int64),
        np.array(exposures, dtype=np.float64),
        np.array(likes, dtype=np.float64),
        np.array(matches, dtype=np.float64),
    )


def read_showings(
    connection: psycopg.Connection[Any], stretch: Stretch, window: timedelta, most: int = MAX_SHOWINGS
) -> Showings:
    """Read the latest showings of the champion to whose requests the shadow made a list too, each pair's first."""
    rows = connection.execute(_SHOWINGS, {**_of(stretch), "window": window, "most": most}).fetchall()
    twins = {row[2]: shadow_request_id(row[2]) for row in rows}
    shadows = {(twin, place): target for twin, place, target in connection.execute(_SHADOWS, [[*twins.values()]])}
    answered = {twin for twin, _ in shadows}
    kept = [row for row in rows if twins[row[2]] in answered]
    users, targets, requests, places, logged, liked, matched = zip(*kept, strict=True) if kept else ((),) * 7
    theirs = [shadows.get((twins[request], place)) for request, place in zip(requests, places, strict=True)]
    return Showings(
        np.array(users, dtype=np.int64),
        np.array(places, dtype=np.int64),
        np.array(logged, dtype=np.float64),
        np.array([one == other for one, other in zip(targets, theirs, strict=True)], dtype=np.float64),
        np.array([one is not None for one in theirs], dtype=np.bool_),
        np.array(liked, dtype=np.bool_),
        np.array(matched, dtype=np.bool_),
    )


def _of(stretch: Stretch) -> dict[str, Any]:
    return {"name": stretch.name, "since": stretch.since, "until": stretch.until}
