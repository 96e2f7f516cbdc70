"""What a webhook has to be told of: written with the interaction that it is about, so that none is ever lost."""

from typing import Final

from alembic import op

from infra.migrations.versions import r0013_stored_interactions as many
from infra.migrations.versions import r0015_undone as one

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS: Final = (
    """
    create table duet.webhook_events (
        event_id uuid primary key,
        kind text not null check (kind in ('match', 'block')),
        actor_id bigint not null references duet.users on delete cascade,
        target_id bigint not null references duet.users on delete cascade,
        occurred_at timestamptz not null,
        created_at timestamptz not null default clock_timestamp(),
        attempts int not null default 0,
        due_at timestamptz not null default clock_timestamp()
    )
    """,
    """
    comment on table duet.webhook_events is
        'An outbox: one row for each match and block that the webhook was not told of yet, under the event id of the'
        ' interaction that made it; `due_at` is when it is to be sent, or sent again.'
    """,
    "create index webhook_events_due on duet.webhook_events (due_at)",
    "create index webhook_events_created on duet.webhook_events (created_at)",
    "drop function duet.store_interaction",
    """
    create function duet.store_interaction(event uuid, actor bigint, target bigint, did text, happened_at timestamptz,
                                           request uuid, tolerance interval, notify boolean default false)
        returns table (stored boolean, same boolean, matched boolean)
        language plpgsql volatile as $$
    declare
        seen_at timestamptz;
        returned boolean := false;
        matched_before boolean := false;
    begin
        if did <> 'message' then
            perform pg_advisory_xact_lock(
                hashint8extended(least(actor, target), hashint8extended(greatest(actor, target), 0)));
        end if;
        seen_at := clock_timestamp();
        stored := false;
        matched := false;
        if did in ('like', 'superlike') then
            -- A pair is looked at whole only where the like is returned at all, which most are not.
            returned := exists (select from duet.interactions i
                                 where i.actor_id = target and i.target_id = actor and i.kind in ('like', 'superlike'));
            if returned and notify then
                select state.matched_at is not null into matched_before
                  from duet.pair_state(actor, target, seen_at) as state;
            end if;
        end if;
        if coalesce(happened_at <= seen_at + tolerance, true) then
            insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at, request_id)
                values (event, actor, target, did, least(happened_at, seen_at), request)
                on conflict (event_id) do nothing;
            stored := found;
        end if;
        if stored then
            same := true;
        else
            select i.actor_id = actor and i.target_id = target and i.kind = did into same
              from duet.interactions i where i.event_id = event;
        end if;
        if same and returned then
            select state.matched_at is not null into matched from duet.pair_state(actor, target, seen_at) as state;
        end if;
        if stored and notify and (did = 'block' or matched and not matched_before) then
            insert into duet.webhook_events (event_id, kind, actor_id, target_id, occurred_at)
                values (event, case when did = 'block' then 'block' else 'match' end, actor, target,
                        least(happened_at, seen_at))
                on conflict (event_id) do nothing;
        end if;
        return next;
    end
    $$
    """,
    """
    comment on function duet.store_interaction is
        'Stores what one person did about another, once per event id and never later than now; `same` is null where it'
        ' was refused because it lies in the future. With `notify`, new matches and blocks go to the outbox of the'
        ' webhook in the same transaction.'
    """,
    "drop function duet.store_interactions",
    *(
        text.replace("tolerance interval)", "tolerance interval, notify boolean default false)").replace(
            "told.request_id, tolerance)", "told.request_id, tolerance, notify)"
        )
        for text in many.STATEMENTS
    ),
)


def upgrade() -> None:
    """Create the table, and let both functions write to it."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop it with what was not delivered."""
    op.execute("drop function duet.store_interactions, duet.store_interaction")
    for statement in (*one.STORE_INTERACTION, *many.STATEMENTS):
        op.execute(statement)
    op.execute("drop table duet.webhook_events")
