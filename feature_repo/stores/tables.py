"""The tables of features in PostgreSQL: a real column per feature, named as in the layout."""

from typing import Any

from psycopg import Connection, sql

from feature_repo.layout import VIEWS


def add_missing_columns(connection: Connection[Any]) -> list[str]:
    """Add the columns of features that are newer than their table; return their names as `view:feature`.

    Rows that are there already get the feature's default. Nothing is locked where nothing is missing.
    """
    added = []
    for layout in VIEWS:
        found = connection.execute(
            "select column_name from information_schema.columns where table_schema = 'features' and table_name = %s",
            (layout.name,),
        ).fetchall()
        there = {str(name) for (name,) in found}
        for feature in layout.features:
            if feature.name not in there:
                connection.execute(
                    sql.SQL("alter table {} add column if not exists {} real not null default {}").format(
                        sql.Identifier("features", layout.name),
                        sql.Identifier(feature.name),
                        sql.Literal(feature.default),
                    )
                )
                added.append(f"{layout.name}:{feature.name}")
    connection.commit()
    return added
