"""What experiments are judged by: every answer, who started and ended what, and the guard's last verdicts."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create table duet.answers (
        request_id uuid primary key,
        user_id bigint not null,
        experiment text,
        arm text not null,
        variant text not null,
        release text,
        level smallint not null check (level between 1 and 4),
        reason text,
        shown smallint not null check (shown >= 0),
        took_ms real not null,
        cached boolean not null,
        failed boolean not null,
        answered_at timestamptz not null
    )
    """,
    """
    comment on table duet.answers is
        'One row per answer. `arm` is what the person is assigned to, `variant` whose release answered; `experiment` is
        null without one and where a tester chose the arm. A failed answer is an error that nobody foresaw.'
    """,
    # Rows come in the order of time: a few pages of summary find a window of any table.
    "create index answers_time on duet.answers using brin (answered_at) with (pages_per_range = 32, autosummarize)",
    "create index answers_experiment on duet.answers (experiment, answered_at) where experiment is not null",
    """
    create table duet.experiment_events (
        event_id bigint generated always as identity primary key,
        name text not null,
        kind text not null check (kind in ('start', 'share', 'stop')),
        state text not null check (state in ('off', 'shadow', 'running')),
        challenger_share real not null check (challenger_share between 0 and 1),
        actor text not null,
        way text not null check (way in ('cli', 'automation')),
        reason text not null default '',
        at timestamptz not null default clock_timestamp()
    )
    """,
    "create index experiment_events_name on duet.experiment_events (name, event_id)",
    """
    create trigger experiment_events_append_only before update or delete or truncate on duet.experiment_events
        for each statement execute function duet.refuse_change()
    """,
    # What runs already was started by somebody; from here on it is known by whom.
    """
    insert into duet.experiment_events (name, kind, state, challenger_share, actor, way, reason, at)
        select name, 'start', state, challenger_share, 'unknown', 'cli', 'started before events were kept', updated_at
          from duet.experiments where state <> 'off'
    """,
    """
    create table duet.guard_verdicts (
        subject text primary key check (subject in ('challenger', 'champion')),
        of text not null,
        verdict text not null,
        summary text not null,
        figures jsonb not null default '[]',
        judged_at timestamptz not null
    )
    """,
)
DROPS = (
    "drop table duet.guard_verdicts",
    "drop table duet.experiment_events",
    "drop table duet.answers",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them with everything in them."""
    for statement in DROPS:
        op.execute(statement)
