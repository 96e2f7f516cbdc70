"""Connections to PostgreSQL with every timeout set, and fast ways in and out for many rows.

Errors of connecting become one sentence without the password. SQL is only ever composed with `psycopg.sql`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString, TypeAlias
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from infra.db import pooled
from infra.db.connection_pool import ConnectionPool
from infra.db.pooled import PooledConnection
from infra.errors import ServerUnavailable
from infra.settings import PostgresSettings

if TYPE_CHECKING:
    import pyarrow as pa

Query: TypeAlias = LiteralString | sql.SQL | sql.Composed
Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any] | None


def connect(
    database_url: str,
    *,
    connect_timeout_s: float = 5.0,
    statement_timeout_s: float | None = None,
    application_name: str = "duet",
    parallel: bool = True,
    prepared: bool = True,
    **kwargs: Any,
) -> psycopg.Connection[Any]:
    """Open one connection; raises ServerUnavailable.

    `statement_timeout_s=None` leaves statements unbounded, for offline work. Not `parallel`, a statement takes one core
    however large it is. Not `prepared`, no statement is ever prepared, as behind PgBouncer. Other arguments
    (`autocommit`, `row_factory`) go to psycopg.
    """
    more = () if parallel else ("max_parallel_workers_per_gather=0",)
    if not prepared:
        kwargs["prepare_threshold"] = None
    try:
        return psycopg.connect(
            database_url,
            connect_timeout=max(2, round(connect_timeout_s)),  # libpq takes whole seconds, and 1 means 2
            application_name=application_name,
            options=_options(database_url, statement_timeout_s, *more),
            **kwargs,
        )
    except psycopg.OperationalError as error:
        raise ServerUnavailable(_unreachable(database_url, error)) from error


async def connect_async(
    database_url: str, *, connect_timeout_s: float, statement_timeout_s: float, application_name: str
) -> PooledConnection:
    """Open one asynchronous autocommit connection, outside of any pool; raises what psycopg raises."""
    return await PooledConnection.connect(
        database_url,
        autocommit=True,
        prepare_threshold=None,  # PgBouncer may lend a server that does not know what another has prepared
        connect_timeout=max(2, round(connect_timeout_s)),
        application_name=application_name,
        options=_options(database_url, statement_timeout_s),
    )


def open_pool(
    database_url: str,
    settings: PostgresSettings,
    *,
    application_name: str = "duet-serving",
    statement_timeout_s: float | None = None,
    **kwargs: Any,
) -> ConnectionPool:
    """Make a bounded pool of autocommit connections; use it with `async with`, or `open` it.

    A connection is checked before it is lent: whether the server hung up, and with a round trip after it idled.
    Waiting is bounded in time and in number (NoConnection). Other arguments go to each connection.
    """
    timeout_s = settings.statement_timeout_s if statement_timeout_s is None else statement_timeout_s
    # The statements are few and always ask for the like: to plan one anew may take longer than to run it.
    options = _options(database_url, timeout_s, "plan_cache_mode=force_generic_plan")

    async def opened() -> PooledConnection:
        connection = await PooledConnection.connect(
            database_url,
            autocommit=True,
            prepare_threshold=0 if settings.prepared_statements else None,
            connect_timeout=max(2, round(settings.connect_timeout_s)),
            application_name=application_name,
            options=options,
            **kwargs,
        )
        pooled.prepare(connection)
        return connection

    return ConnectionPool(
        opened,
        name=application_name,
        size=settings.pool_size,
        most=settings.pool_size + settings.max_overflow,
        max_waiting=settings.max_waiting,
        checkout_timeout_s=settings.checkout_timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
    )


def read_table(
    connection: psycopg.Connection[Any],
    query: Query,
    parameters: Parameters = None,
    *,
    types: Mapping[str, "pa.DataType"] | None = None,
) -> "pa.Table":
    """Run a query through COPY and return an Arrow table: the fast way out for millions of rows.

    Columns must be scalars; `types` names those whose Arrow type must not be guessed. NULL is told from ''.
    """
    import pyarrow as pa
    from pyarrow import csv

    statement = sql.SQL("copy ({}) to stdout (format csv, header true, force_quote *)").format(
        query if isinstance(query, sql.Composable) else sql.SQL(query)
    )
    buffer = pa.BufferOutputStream()
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        for block in copy:
            buffer.write(block)
    return csv.read_csv(
        pa.BufferReader(buffer.getvalue()),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict(types or {}),
            true_values=["t"],
            false_values=["f"],
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _options(database_url: str, statement_timeout_s: float | None, *more: str) -> str | None:
    """Add the statement timeout and `more` to the URL's own options instead of replacing them."""
    own = psycopg.conninfo.conninfo_to_dict(database_url).get("options")
    parts = [str(own)] if own else []
    if statement_timeout_s is not None:
        parts.append(f"-c statement_timeout={round(statement_timeout_s * 1000)}")
    parts += [f"-c {setting}" for setting in more]
    return " ".join(parts) or None


def _unreachable(database_url: str, error: Exception) -> str:
    place = urlsplit(database_url)
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    password = place.password
    if password:
        reason = reason.replace(password, "***")
    return f"PostgreSQL at `{place.hostname}:{place.port or 5432}{place.path}` cannot be reached: {reason}."
