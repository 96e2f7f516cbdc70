"""The data contract: people, interactions, impressions, promotions, imports, and the offline feature tables."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    create table duet.users (
        user_id bigint primary key check (user_id > 0),
        birth_date date,
        gender text,
        seeking text[] not null default '{}',
        age_min smallint,
        age_max smallint,
        latitude real,
        longitude real,
        max_distance_km real,
        interests text[] not null default '{}',
        bio text,
        created_at timestamptz not null default now(),
        last_active_at timestamptz,
        visible boolean not null default true,
        attributes jsonb not null default '{}',
        updated_at timestamptz not null default now()
    )
    """,
    """
    comment on table duet.users is
        'A NULL preference and an empty `seeking` mean no restriction; a NULL gender matches only people without one.'
    """,
    """
    create table duet.interactions (
        event_id uuid primary key,
        actor_id bigint not null references duet.users,
        target_id bigint not null references duet.users,
        kind text not null check (kind in ('like', 'pass', 'superlike', 'message', 'block', 'report')),
        occurred_at timestamptz not null,
        request_id uuid,
        recorded_at timestamptz not null default now(),
        check (actor_id <> target_id)
    )
    """,
    "create index interactions_actor on duet.interactions (actor_id, occurred_at)",
    "create index interactions_target on duet.interactions (target_id, occurred_at)",
    "create index interactions_time on duet.interactions (occurred_at)",
    """
    create table duet.impressions (
        request_id uuid not null,
        user_id bigint not null,
        target_id bigint not null,
        position smallint not null check (position >= 0),
        score real,
        propensity real,
        source text,
        release text,
        variant text,
        level smallint,
        shown_at timestamptz not null,
        primary key (request_id, position)
    )
    """,
    "create index impressions_user on duet.impressions (user_id, shown_at)",
    "create index impressions_time on duet.impressions (shown_at)",
    """
    create table duet.promotions (
        promotion_id bigint generated always as identity primary key,
        release text,
        model text not null,
        version int not null,
        from_stage text,
        to_stage text not null,
        actor text not null,
        way text not null check (way in ('cli', 'ui', 'automation')),
        reason text,
        gates jsonb,
        at timestamptz not null default clock_timestamp()
    )
    """,
    """
    create function duet.refuse_change() returns trigger language plpgsql as $$
    begin
        raise exception '%.% is append only: % is refused', tg_table_schema, tg_table_name, lower(tg_op)
            using errcode = 'insufficient_privilege';
    end
    $$
    """,
    """
    create trigger promotions_append_only before update or delete or truncate on duet.promotions
        for each statement execute function duet.refuse_change()
    """,
    """
    create table duet.experiments (
        name text primary key,
        salt text not null,
        challenger_share real not null default 0 check (challenger_share between 0 and 1),
        state text not null default 'off',
        updated_at timestamptz not null default now()
    )
    """,
    """
    create table duet.quarantine (
        quarantine_id bigint generated always as identity primary key,
        import_id uuid not null,
        file text not null,
        line bigint,
        reason text not null,
        "row" jsonb,
        at timestamptz not null default now()
    )
    """,
    "create index quarantine_import on duet.quarantine (import_id)",
    """
    create table duet.imports (
        import_id uuid primary key,
        kind text not null,
        source text not null,
        parameters jsonb not null default '{}',
        people_rows bigint not null default 0,
        interaction_rows bigint not null default 0,
        quarantined_rows bigint not null default 0,
        started_at timestamptz not null,
        finished_at timestamptz
    )
    """,
    """
    create table duet.attribute_slots (
        name text primary key,
        slot smallint not null unique check (slot between 0 and 23)
    )
    """,
)
VIEWS = ("user_profile", "user_attributes", "user_activity", "user_reciprocity")
FEATURE_TABLE = """
    create table features.{name} (
        user_id bigint not null,
        event_timestamp timestamptz not null,
        created_timestamp timestamptz not null default now(),
        values real[] not null,
        primary key (user_id, event_timestamp)
    )
"""
DROPS = (
    *(f"drop table features.{name}" for name in VIEWS),
    "drop table duet.attribute_slots, duet.imports, duet.quarantine, duet.experiments, duet.promotions",
    "drop table duet.impressions, duet.interactions, duet.users",
    "drop function duet.refuse_change()",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in TABLES:
        op.execute(statement)
    for name in VIEWS:
        op.execute(FEATURE_TABLE.format(name=name))


def downgrade() -> None:
    """Drop the tables with everything in them."""
    for statement in DROPS:
        op.execute(statement)
