"""Starting, changing and stopping experiments: rows of one table that every serving worker polls.

A salt is drawn when an experiment is made and kept for its life, so stopping and starting it again assigns the same
people; another experiment draws anew. At most one is active: arms of two would mix. Every change leaves an event that
nobody can alter: who, which way and why.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid5

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from registry.errors import ExperimentActive, NoSuchExperiment

_START = sql.SQL("""
    insert into duet.experiments as mine (name, salt, challenger_share, state, started_at, updated_at)
    values (%(name)s, %(salt)s, %(share)s, %(state)s, now(), now())
    on conflict (name) do update set
        challenger_share = excluded.challenger_share,
        state = excluded.state,
        started_at = case when mine.state = 'off' then now() else mine.started_at end,
        updated_at = now()
    returning state, challenger_share
""")
_SHARE = sql.SQL("""
    update duet.experiments set challenger_share = %s, updated_at = now() where name = %s
    returning state, challenger_share
""")
_STOP = sql.SQL("""
    update duet.experiments set state = 'off', updated_at = now() where name = %s and state <> 'off'
    returning state, challenger_share
""")
_NOTE = sql.SQL("""
    insert into duet.experiment_events (name, kind, state, challenger_share, actor, way, reason)
    values (%s, %s, %s, %s, %s, %s, %s)
""")
_LIST = sql.SQL(
    "select name, state, challenger_share, started_at, updated_at from duet.experiments"
    " order by state = 'off', updated_at desc, name"
)
_OTHER = sql.SQL("select name from duet.experiments where state <> 'off' and name <> %s")
_KNOWN = sql.SQL("select 1 from duet.experiments where name = %s")
_EVENTS = sql.SQL("""
    select name, kind, state, challenger_share, actor, way, reason, at
      from duet.experiment_events where name = %s order by event_id
""")

_KEEP = sql.SQL("""
    insert into duet.guard_verdicts (subject, of, verdict, summary, figures, judged_at)
    values (%s, %s, %s, %s, %s, %s)
    on conflict (subject) do update set
        of = excluded.of, verdict = excluded.verdict, summary = excluded.summary, figures = excluded.figures,
        judged_at = excluded.judged_at
""")
_VERDICTS = sql.SQL("select subject, of, verdict, summary, judged_at from duet.guard_verdicts")

EventKind = Literal["start", "share", "stop"]


class ExperimentState(StrEnum):
    """What an experiment does: nothing, rank in the shadow without showing it, or answer a share of the people."""

    OFF = "off"
    SHADOW = "shadow"
    RUNNING = "running"


SHADOW_VARIANT: Final = "shadow"
"""The variant and the arm that what a shadow logs carries."""


def shadow_request_id(request_id: UUID) -> UUID:
    """Return the id under which the shadow of a request is logged."""
    return uuid5(request_id, SHADOW_VARIANT)


@dataclass(frozen=True)
class By:
    """Who changes an experiment, which way and why."""

    actor: str
    way: Literal["cli", "automation"] = "cli"
    reason: str = ""


class ListedExperiment(NamedTuple):
    """One experiment as it is shown."""

    name: str
    state: str
    challenger_share: float
    started_at: datetime | None
    updated_at: datetime


class ExperimentEvent(NamedTuple):
    """One change of an experiment; state and share are those after it."""

    name: str
    kind: EventKind
    state: str
    challenger_share: float
    actor: str
    way: str
    reason: str
    at: datetime


class GuardVerdict(NamedTuple):
    """What the guard last found of a challenger (of which experiment) or a champion (which release), and did."""

    subject: str
    of: str
    verdict: str
    summary: str
    judged_at: datetime


def start_experiment(
    connection: psycopg.Connection[Any], name: str, *, share: float, state: ExperimentState, by: By
) -> None:
    """Make or change an experiment and activate it; raises ExperimentActive while another one is."""
    row = {"name": name, "salt": secrets.token_hex(8), "share": share, "state": state.value}
    try:
        with connection.transaction():
            _note(connection, connection.execute(_START, row).fetchone(), name, "start", by)
    except psycopg.errors.UniqueViolation:
        other = connection.execute(_OTHER, (name,)).fetchone()
        raise ExperimentActive(
            f"Experiment `{other[0] if other else 'unknown'}` is active and there can be only one: stop it first."
        ) from None


def set_share(connection: psycopg.Connection[Any], name: str, share: float, *, by: By) -> None:
    """Change the share of people who get the challenger; raises NoSuchExperiment."""
    with connection.transaction():
        _note(connection, connection.execute(_SHARE, (share, name)).fetchone(), name, "share", by)


def stop_experiment(connection: psycopg.Connection[Any], name: str, *, by: By) -> bool:
    """Turn an experiment off: everybody gets the champion within a poll; False when it was off, and nothing changes.

    Raises NoSuchExperiment.
    """
    with connection.transaction():
        stopped = connection.execute(_STOP, (name,)).fetchone()
        if stopped is None and connection.execute(_KNOWN, (name,)).fetchone() is not None:
            return False
        _note(connection, stopped, name, "stop", by)
    return True


def list_experiments(connection: psycopg.Connection[Any]) -> list[ListedExperiment]:
    """Return every experiment, the active one first, then the latest changed."""
    return [ListedExperiment(*row) for row in connection.execute(_LIST).fetchall()]


def experiment_events(connection: psycopg.Connection[Any], name: str) -> list[ExperimentEvent]:
    """Return what was done to an experiment, oldest first."""
    return [ExperimentEvent(*row) for row in connection.execute(_EVENTS, (name,)).fetchall()]


def keep_verdict(
    connection: psycopg.Connection[Any],
    *,
    subject: Literal["challenger", "champion"],
    of: str,
    verdict: str,
    summary: str,
    figures: Jsonb,
    at: datetime,
) -> None:
    """Keep the guard's last verdict on a subject, in place of the one before."""
    connection.execute(_KEEP, (subject, of, verdict, summary, figures, at))


def last_verdicts(connection: psycopg.Connection[Any]) -> dict[str, GuardVerdict]:
    """Return the guard's last verdict on each subject."""
    return {row[0]: GuardVerdict(*row) for row in connection.execute(_VERDICTS).fetchall()}


def _note(
    connection: psycopg.Connection[Any], now: tuple[str, float] | None, name: str, kind: EventKind, by: By
) -> None:
    if now is None:
        raise NoSuchExperiment(f"No experiment is named `{name}`: `duet experiment show` lists them.")
    state, share = now
    connection.execute(_NOTE, (name, kind, state, share, by.actor, by.way, by.reason))
