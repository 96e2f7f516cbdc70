"""What serving follows besides the stages: digests in the audit, pins for rollbacks, and what each worker serves."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    # With it a rollback knows which bytes to look for while MLflow is away.
    "alter table duet.promotions add column digest text",
    """
    create table duet.release_pins (
        pin_id bigint generated always as identity primary key,
        stage text not null default 'Production' check (stage = 'Production'),
        release text not null,
        digests jsonb not null,
        actor text not null,
        way text not null check (way in ('cli', 'ui', 'automation')),
        reason text not null default '',
        pinned_at timestamptz not null default clock_timestamp(),
        closed_at timestamptz,
        closed_by text,
        check ((closed_at is null) = (closed_by is null))
    )
    """,
    "create unique index release_pins_one_open on duet.release_pins (stage) where closed_at is null",
    """
    comment on table duet.release_pins is
        'An open pin counts more than the stages of MLflow: a rollback that MLflow was not told of yet.'
    """,
    """
    create table duet.serving_workers (
        worker_id uuid primary key,
        host text not null,
        pid int not null,
        release text,
        refused text,
        challenger text,
        challenger_refused text,
        pin_id bigint,
        copies text[] not null default '{}',
        seen_at timestamptz not null default clock_timestamp()
    )
    """,
    "comment on column duet.serving_workers.copies is 'Releases that this machine can serve without MLflow.'",
)
DROPS = (
    "drop table duet.serving_workers",
    "drop table duet.release_pins",
    "alter table duet.promotions drop column digest",
)


def upgrade() -> None:
    """Create the column and the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DROPS:
        op.execute(statement)
