"""Which rows a look at the database could not have seen yet.

Times alone cannot tell: a row becomes visible when its transaction commits, later than the time it carries. So a look
notes its horizon, the oldest transaction that was still running; every row of an older one had been seen. The next look
asks for rows from there on. Rows carry the low 32 bits of their transaction's number, which is enough: a look goes back
minutes, not billions of transactions.
"""

from typing import LiteralString

from psycopg import sql

LATEST = sql.SQL("(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS top) AS latest")
"""What `unseen` needs among the tables of its query."""
HORIZON = sql.SQL("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
"""The horizon of this instant."""
# Not the snapshot's own `xmax`: that is the first after all that have *ended*.
NEXT = HORIZON + sql.SQL(" + age(pg_snapshot_xmin(pg_current_snapshot())::xid)")
"""The number of the next transaction to begin at this instant."""


def unseen(table: LiteralString) -> sql.Composed:
    """Return the condition that a look with `%(horizon)s` may have missed a row; all do where numbers began anew."""
    return sql.SQL(
        "(latest.top < %(horizon)s OR latest.top - ((latest.top - {}.xmin::text::bigint) & 4294967295) >= %(horizon)s)"
    ).format(sql.Identifier(table))
