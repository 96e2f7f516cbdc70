"""Whether people may still be shown is read from an index that fits into memory, not from their rows."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.execute("create unique index users_standing on duet.users (user_id) include (visible, updated_at)")


def downgrade() -> None:
    """Drop it."""
    op.execute("drop index duet.users_standing")
