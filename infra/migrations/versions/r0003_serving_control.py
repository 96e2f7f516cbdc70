"""What steers serving at run time: API keys, checked experiments, and what tells serving of changes."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table duet.api_keys (
        key_id text primary key check (key_id ~ '^[a-z0-9]{8,32}$'),
        name text not null unique check (length(name) between 1 and 100),
        secret_sha256 bytea not null check (length(secret_sha256) = 32),
        requests_per_minute int check (requests_per_minute > 0),
        tester boolean not null default false,
        created_at timestamptz not null default now(),
        revoked_at timestamptz
    )
    """,
    "comment on column duet.api_keys.tester is 'Whether calls with this key may choose the arm of an experiment.'",
    """
    alter table duet.experiments
        add constraint experiments_state check (state in ('off', 'shadow', 'running')),
        add column started_at timestamptz
    """,
    # At most one experiment has an effect: arms of two would mix.
    "create unique index experiments_one_active on duet.experiments ((true)) where state <> 'off'",
    # What came since the last look, at any size of the table; rows only ever go to its right end.
    """
    create index interactions_likes_recorded on duet.interactions (recorded_at)
        where kind in ('like', 'superlike')
    """,
    # A deleted row says nothing any more: this is how those who hold people in memory hear of it.
    """
    create table duet.deletions (
        user_id bigint primary key,
        deleted_at timestamptz not null
    )
    """,
    "create index deletions_time on duet.deletions (deleted_at)",
    """
    create function duet.note_deletions() returns trigger language plpgsql as $$
    begin
        delete from duet.deletions where deleted_at < clock_timestamp() - interval '7 days';
        insert into duet.deletions select user_id, clock_timestamp() from gone
            on conflict (user_id) do update set deleted_at = excluded.deleted_at;
        return null;
    end
    $$
    """,
    """
    create trigger users_deleted after delete on duet.users referencing old table as gone
        for each statement execute function duet.note_deletions()
    """,
    # Also where rows are deleted by replication, which fires no ordinary trigger.
    "alter table duet.users enable always trigger users_deleted",
)
DROPS = (
    "drop trigger users_deleted on duet.users",
    "drop function duet.note_deletions()",
    "drop table duet.deletions",
    "drop index duet.interactions_likes_recorded",
    "drop index duet.experiments_one_active",
    "alter table duet.experiments drop constraint experiments_state, drop column started_at",
    "drop table duet.api_keys",
)


def upgrade() -> None:
    """Create the tables, constraints, indexes and triggers."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DROPS:
        op.execute(statement)
