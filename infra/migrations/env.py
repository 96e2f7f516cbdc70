"""Alembic's entry: runs revisions, a transaction each, on the connection handed over by `infra.db.migrate`."""

from alembic import context
from sqlalchemy import Connection, text

from infra.errors import MigrationError


def run(connection: Connection | None) -> None:
    """Run the revisions asked for; raises MigrationError without a connection."""
    if connection is None:
        raise MigrationError("Migrations run through `duet migrate`, which holds the lock they need.")
    # A migration that waits behind a long query makes everybody else wait behind it: give up early instead.
    connection.execute(text("set lock_timeout = '5s'"))
    connection.commit()
    # A transaction for each revision: a lock is held for as long as its own revision takes.
    context.configure(
        connection=connection,
        version_table="alembic_version",
        version_table_schema="duet",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes.get("connection"))
