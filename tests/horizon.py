"""Waiting for the writers of other tests: one server holds the databases of all, and has one horizon."""

from typing import Any

import psycopg
from psycopg import sql

from infra.db.horizon import HORIZON
from tests.waiting import until

PATIENCE_S = 300.0


def until_all_was_seen(connection: psycopg.Connection[Any]) -> None:
    """Commit, and wait until every transaction that began before has ended, in whichever database.

    Until then a look cannot say that it saw what was just written, and takes it for news once more.
    """
    own = connection.execute("select pg_current_xact_id()::text::bigint").fetchone()
    connection.commit()

    def is_past() -> bool:
        horizon = connection.execute(HORIZON_NOW).fetchone()
        connection.rollback()
        assert own is not None
        assert horizon is not None
        return bool(horizon[0] > own[0])

    until(is_past, PATIENCE_S)


HORIZON_NOW = sql.SQL("select {}").format(HORIZON)
