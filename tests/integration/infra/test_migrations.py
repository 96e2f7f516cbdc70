"""The schema goes up, down and up again, and the audit of promotions cannot be changed."""

import psycopg
import pytest
from alembic.script import ScriptDirectory

from infra.db.migrate import HEAD, SCHEMAS, alembic_config, current, downgrade, upgrade
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.errors import MigrationError


def tables(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute(
        "select schemaname || '.' || tablename from pg_tables where schemaname in ('duet', 'features')"
    )
    return {name for (name,) in rows} - {"duet.alembic_version"}


def test_the_schema_goes_up_down_and_up_again(endpoints: Endpoints) -> None:
    with connect(endpoints.database_url, autocommit=True) as connection:
        before = tables(connection)
        assert {"duet.users", "duet.interactions", "duet.promotions", "features.user_profile"} <= before
        downgrade(endpoints.database_url, "base")
        assert tables(connection) == set()
        assert current(endpoints.database_url) is None
        upgrade(endpoints.database_url)
        assert tables(connection) == before
    assert current(endpoints.database_url) == HEAD


def test_rows_of_features_keep_their_values_on_the_way_to_named_columns_and_back(endpoints: Endpoints) -> None:
    with connect(endpoints.database_url, autocommit=True) as connection:
        downgrade(endpoints.database_url, "0009")
        insert = "insert into features.user_reciprocity (user_id, event_timestamp, values) values (%s, now(), %s)"
        connection.execute(insert, (1, [1.0, 2.0, 3.0, 0.25, float("nan"), 6.0, 7.0]))
        connection.execute(insert, (2, [1.0, 2.0]))
        upgrade(endpoints.database_url)
        named = "select user_id, matches_7d, match_rate, messages_received_30d from features.user_reciprocity"
        assert connection.execute(named).fetchall() == [(1, 1.0, 0.25, 7.0)]
        connection.execute("insert into features.user_reciprocity (user_id, event_timestamp) values (3, now())")
        downgrade(endpoints.database_url, "0009")
        arrays = "select user_id, values::text from features.user_reciprocity order by 1"
        assert connection.execute(arrays).fetchall() == [(1, "{1,2,3,0.25,NaN,6,7}"), (3, "{0,0,0,0.3,0.3,0,0}")]
        connection.execute("delete from features.user_reciprocity")
        upgrade(endpoints.database_url)


def test_the_newest_file_is_the_only_head_of_the_revisions() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_every_component_has_its_schema(connection: psycopg.Connection) -> None:
    found = connection.execute("select nspname from pg_namespace where nspname = any(%s)", (list(SCHEMAS),)).fetchall()
    assert {name for (name,) in found} == {"duet", "features", "feast", "dagster", "mlflow"}


def test_an_unknown_revision_is_refused_in_one_sentence(endpoints: Endpoints) -> None:
    with pytest.raises(MigrationError, match="cannot be migrated"):
        upgrade(endpoints.database_url, "9999")


@pytest.mark.parametrize(
    "statement",
    ["update duet.promotions set reason = 'other'", "delete from duet.promotions", "truncate duet.promotions"],
)
def test_a_promotion_once_written_cannot_be_changed(connection: psycopg.Connection, statement: str) -> None:
    connection.execute(
        "insert into duet.promotions (model, version, to_stage, actor, way) values ('m', 1, 'Production', 'a', 'cli')"
    )
    connection.commit()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append only"):
        connection.execute(statement)
    connection.rollback()
    assert connection.execute("select count(*) from duet.promotions").fetchone() == (1,)


def test_nobody_can_swipe_on_oneself(connection: psycopg.Connection) -> None:
    connection.execute("insert into duet.users (user_id) values (1)")
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "insert into duet.interactions values (gen_random_uuid(), 1, 1, 'like', now(), null, default)"
        )


def test_tables_are_empty_for_the_next_test(connection: psycopg.Connection) -> None:
    assert connection.execute("select count(*) from duet.promotions").fetchone() == (0,)
