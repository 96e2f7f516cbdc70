"""What serving needs to read fresh data fast: a truthful `updated_at`, and indexes for separations and changes."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create function duet.touch() returns trigger language plpgsql as $$
    begin
        new.updated_at = clock_timestamp();
        return new;
    end
    $$
    """,
    """
    create trigger users_touched before update on duet.users
        for each row when (old.* is distinct from new.*) execute function duet.touch()
    """,
    "create index users_updated on duet.users (updated_at)",
    """
    create index interactions_separations on duet.interactions (target_id, actor_id)
        where kind in ('block', 'report')
    """,
)
DROPS = (
    "drop index duet.interactions_separations",
    "drop index duet.users_updated",
    "drop trigger users_touched on duet.users",
    "drop function duet.touch()",
)


def upgrade() -> None:
    """Create the trigger and the indexes."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DROPS:
        op.execute(statement)
