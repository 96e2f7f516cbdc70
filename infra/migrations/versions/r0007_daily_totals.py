"""What is left of old rows, day by day: totals of impressions and answers, and the figures of the marketplace."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Missing texts are '' and a missing level is 0, so that equal rows meet in one total.
    """
    create table duet.impressions_daily (
        day date not null,
        release text not null,
        variant text not null,
        source text not null,
        level smallint not null,
        shown bigint not null check (shown > 0),
        primary key (day, release, variant, source, level)
    )
    """,
    """
    create table duet.answers_daily (
        day date not null,
        experiment text not null,
        arm text not null,
        variant text not null,
        release text not null,
        reason text not null,
        level smallint not null,
        cached boolean not null,
        failed boolean not null,
        answers bigint not null check (answers > 0),
        shown bigint not null,
        took_ms double precision not null,
        primary key (day, experiment, arm, variant, release, reason, level, cached, failed)
    )
    """,
    """
    create table duet.activity_daily (
        day date primary key,
        people_active bigint not null,
        likes bigint not null,
        passes bigint not null,
        messages bigint not null,
        matches bigint not null,
        shown bigint not null,
        people_shown bigint,
        exposure_gini real check (exposure_gini between 0 and 1),
        computed_at timestamptz not null default clock_timestamp()
    )
    """,
    """
    comment on column duet.activity_daily.exposure_gini is
        'Of those shown that day; null where the day was never looked at while its impressions were kept one by one.'
    """,
    # Rows come in the order of their recording, so a few pages of summary find the newest of any table.
    """
    create index interactions_recorded on duet.interactions using brin (recorded_at)
        with (pages_per_range = 32, autosummarize)
    """,
)
DROPS = (
    "drop index duet.interactions_recorded",
    "drop table duet.activity_daily, duet.answers_daily, duet.impressions_daily",
)


def upgrade() -> None:
    """Create the tables and the index."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DROPS:
        op.execute(statement)
