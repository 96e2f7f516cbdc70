"""Erasing is a right of its own: whoever may call these functions need not be allowed what they do."""

from typing import Final

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

ERASING: Final = (
    "duet.begin_erasure(bigint, text[], text[], text, text)",
    "duet.erase_rows(bigint)",
    "duet.erasure_report(text)",
)


def upgrade() -> None:
    """Let the functions run as their owner, for nobody but whom `duet db-roles` names."""
    for function in ERASING:
        op.execute(f"alter function {function} security definer")
        # Nothing of the caller's comes before what the function means.
        op.execute(f"alter function {function} set search_path = pg_catalog, pg_temp")
        op.execute(f"revoke execute on function {function} from public")


def downgrade() -> None:
    """Let them run as their caller again."""
    for function in ERASING:
        op.execute(f"alter function {function} security invoker")
        op.execute(f"alter function {function} reset search_path")
        op.execute(f"grant execute on function {function} to public")
