"""What the pipelines measured last, for the metrics that serving shows."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.execute("""
        create table duet.measurements (
            measure     text primary key,
            value       double precision not null,
            about       text not null,
            measured_at timestamptz not null
        )
    """)


def downgrade() -> None:
    """Drop the table."""
    op.execute("drop table duet.measurements")
