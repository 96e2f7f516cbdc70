"""Puts rows into the tables of features by name."""

from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from feature_repo.layout import Layout


def put_features(
    connection: psycopg.Connection[Any],
    layout: Layout,
    user_id: int,
    at: datetime,
    *,
    created: datetime | None = None,
    **values: float,
) -> None:
    """Insert one row; features that are not named take their default."""
    names = ("user_id", "event_timestamp", "created_timestamp", *values)
    connection.execute(
        sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier("features", layout.name),
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
        ),
        (user_id, at, created or at, *map(float, values.values())),
    )
