"""Which bytes a worker serves: the numbers of a deleted version may come again with others."""

from typing import Final

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

STATEMENTS: Final = (
    "alter table duet.serving_workers add column mark text, add column challenger_mark text",
    """
    comment on column duet.serving_workers.mark is
        'Twelve hexadecimal digits that tell releases of the same numbers apart; null from workers that do not say it.'
    """,
)


def upgrade() -> None:
    """Add the columns."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("alter table duet.serving_workers drop column mark, drop column challenger_mark")
