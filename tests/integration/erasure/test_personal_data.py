"""Every table of Duet's own schemas is declared: what it holds of people, and so what an erasure does with it."""

from typing import Any

import psycopg

from infra.db.personal_data import IMPERSONAL, PERSON_COLUMNS, PERSONAL, TEXTS

DECLARED = {*(table.place for table in PERSONAL), *TEXTS, *IMPERSONAL}


def columns(connection: psycopg.Connection[Any]) -> dict[str, set[str]]:
    rows = connection.execute(
        "select table_schema || '.' || table_name, array_agg(column_name::text) from information_schema.columns"
        " where table_schema in ('duet', 'features') and table_name <> 'alembic_version' group by 1"
    ).fetchall()
    return {table: set(names) for table, names in rows}


def test_every_table_is_declared_once(connection: psycopg.Connection[Any]) -> None:
    assert sorted(columns(connection)) == sorted(DECLARED)
    assert len(DECLARED) == len(PERSONAL) + len(TEXTS) + len(IMPERSONAL)


def test_a_table_with_a_column_of_people_is_declared_with_it(connection: psycopg.Connection[Any]) -> None:
    found = columns(connection)
    by_place = {table.place: table for table in PERSONAL}
    for place, names in found.items():
        named = names & PERSON_COLUMNS - {"external_id"}
        assert place in TEXTS or named == set(by_place[place].columns if place in by_place else ()), place
    assert all(table.at in found[table.place] for table in PERSONAL)
