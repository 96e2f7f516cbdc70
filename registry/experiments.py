"""Starting, changing and stopping experiments: rows of one table that every serving worker polls.

A salt is drawn when an experiment is made and kept for its life, so stopping and starting it again assigns the same
people; another experiment draws anew. At most one is active: arms of two would mix.
"""

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from registry.errors import ExperimentActive, NoSuchExperiment

_START = sql.SQL("""
    insert into duet.experiments as mine (name, salt, challenger_share, state, started_at, updated_at)
    values (%(name)s, %(salt)s, %(share)s, %(state)s, now(), now())
    on conflict (name) do update set
        challenger_share = excluded.challenger_share,
        state = excluded.state,
        started_at = case when mine.state = 'off' then now() else mine.started_at end,
        updated_at = now()
""")
_SHARE = sql.SQL("update duet.experiments set challenger_share = %s, updated_at = now() where name = %s")
_STOP = sql.SQL("update duet.experiments set state = 'off', updated_at = now() where name = %s")
_LIST = sql.SQL(
    "select name, state, challenger_share, started_at, updated_at from duet.experiments"
    " order by state = 'off', updated_at desc, name"
)
_OTHER = sql.SQL("select name from duet.experiments where state <> 'off' and name <> %s")


class State(StrEnum):
    """What an experiment does: nothing, rank in the shadow without showing it, or answer a share of the people."""

    OFF = "off"
    SHADOW = "shadow"
    RUNNING = "running"


class ListedExperiment(NamedTuple):
    """One experiment as it is shown."""

    name: str
    state: str
    challenger_share: float
    started_at: datetime | None
    updated_at: datetime


def start_experiment(connection: psycopg.Connection[Any], name: str, *, share: float, state: State) -> None:
    """Make or change an experiment and activate it; raises ExperimentActive while another one is."""
    row = {"name": name, "salt": secrets.token_hex(8), "share": share, "state": state.value}
    try:
        with connection.transaction():
            connection.execute(_START, row)
    except psycopg.errors.UniqueViolation:
        other = connection.execute(_OTHER, (name,)).fetchone()
        raise ExperimentActive(
            f"Experiment `{other[0] if other else 'unknown'}` is active and there can be only one: stop it first."
        ) from None


def set_share(connection: psycopg.Connection[Any], name: str, share: float) -> None:
    """Change the share of people who get the challenger; raises NoSuchExperiment."""
    _one(connection.execute(_SHARE, (share, name)).rowcount, name)


def stop_experiment(connection: psycopg.Connection[Any], name: str) -> None:
    """Turn an experiment off: everybody gets the champion within a poll; raises NoSuchExperiment."""
    _one(connection.execute(_STOP, (name,)).rowcount, name)


def list_experiments(connection: psycopg.Connection[Any]) -> list[ListedExperiment]:
    """Return every experiment, the active one first, then the latest changed."""
    return [ListedExperiment(*row) for row in connection.execute(_LIST).fetchall()]


def _one(changed: int, name: str) -> None:
    if not changed:
        raise NoSuchExperiment(f"No experiment is named `{name}`: `duet experiment show` lists them.")
