"""A column per feature in place of one array per row.

Rows of arrays of another length belong to an older version, which nothing could read any more: they go.
"""

from typing import Final

from alembic import op
from psycopg import sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UNKNOWN: Final = "NaN"
RATE_PRIOR: Final = "0.3"
TABLES: Final[dict[str, dict[str, str]]] = {
    "user_profile": {
        "birth_day": UNKNOWN,
        "gender": "0",
        "seeking": "0",
        "age_min": UNKNOWN,
        "age_max": UNKNOWN,
        "latitude": UNKNOWN,
        "longitude": UNKNOWN,
        "max_distance_km": UNKNOWN,
        "n_interests": "0",
        "bio_length": "0",
        "created_day": UNKNOWN,
        **{f"interests_{word:02d}": "0" for word in range(10)},
    },
    "user_attributes": {f"attribute_{slot:02d}": UNKNOWN for slot in range(24)},
    "user_activity": {
        "likes_sent_7d": "0",
        "likes_sent_30d": "0",
        "passes_sent_30d": "0",
        "likes_received_7d": "0",
        "likes_received_30d": "0",
        "passes_received_30d": "0",
        "decisions_sent": "0",
        "decisions_received": "0",
        "like_rate_given": RATE_PRIOR,
        "like_rate_received": RATE_PRIOR,
        "last_active_day": UNKNOWN,
    },
    "user_reciprocity": {
        "matches_7d": "0",
        "matches_30d": "0",
        "matches": "0",
        "match_rate": RATE_PRIOR,
        "like_back_rate": RATE_PRIOR,
        "messages_sent_30d": "0",
        "messages_received_30d": "0",
    },
}
"""The features of each table in the order of its arrays, and the value of whoever has no row."""
MADE: Final = sql.SQL("""
    create table {made} (
        user_id bigint not null,
        event_timestamp timestamptz not null,
        created_timestamp timestamptz not null default now(),
        {columns},
        primary key (user_id, event_timestamp)
    )
""")
KEYS: Final = sql.SQL("user_id, event_timestamp, created_timestamp")


def upgrade() -> None:
    """Write every table anew with a column per feature."""
    for table, defaults in TABLES.items():
        columns = sql.SQL(", ").join(
            sql.SQL("{} real not null default {}").format(sql.Identifier(name), sql.Literal(default))
            for name, default in defaults.items()
        )
        values = sql.SQL(", ").join(
            sql.SQL("coalesce(values[{}], {})").format(sql.Literal(place), sql.Literal(default))
            for place, default in enumerate(defaults.values(), start=1)
        )
        kept = sql.SQL("where cardinality(values) = {}").format(sql.Literal(len(defaults)))
        replace(table, columns, values, kept)


def downgrade() -> None:
    """Write every table anew with one array per row."""
    for table, defaults in TABLES.items():
        array = sql.SQL("array[{}]::real[]").format(sql.SQL(", ").join(map(sql.Identifier, defaults)))
        replace(table, sql.SQL("values real[] not null"), array, sql.SQL(""))


def replace(table: str, columns: sql.Composable, values: sql.Composable, kept: sql.Composable) -> None:
    """Put a table of other columns, with the same rows, in the place of one."""
    old, made = sql.Identifier("features", table), sql.Identifier("features", f"{table}_made")
    run(MADE.format(made=made, columns=columns))
    run(sql.SQL("insert into {} select {}, {} from {} {}").format(made, KEYS, values, old, kept))
    run(sql.SQL("drop table {}").format(old))
    run(sql.SQL("alter table {} rename to {}").format(made, sql.Identifier(table)))
    run(
        sql.SQL("alter index {} rename to {}").format(
            sql.Identifier("features", f"{table}_made_pkey"), sql.Identifier(f"{table}_pkey")
        )
    )


def run(statement: sql.Composable) -> None:
    """Run a statement on the connection of the migration."""
    op.execute(statement.as_string(None))
