"""What one person did is read from the index alone, at any number of interactions."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create index interactions_decisions on duet.interactions (actor_id, occurred_at) include (target_id, kind)
    """,
    "drop index duet.interactions_actor",
)
DROPS = (
    "create index interactions_actor on duet.interactions (actor_id, occurred_at)",
    "drop index duet.interactions_decisions",
)


def upgrade() -> None:
    """Replace the index."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Put the old index back."""
    for statement in DROPS:
        op.execute(statement)
