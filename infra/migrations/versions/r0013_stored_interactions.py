"""Many interactions in one statement, each by the one way in."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Pairs are locked in one order, so that two calls never wait for each other; events of one pair keep theirs.
    """
    create function duet.store_interactions(given jsonb, tolerance interval)
        returns table (place int, missing text, stored boolean, same boolean, matched boolean)
        language plpgsql volatile as $$
    declare
        told record;
    begin
        for told in
            select row.ordinality - 1 as place, event.*
              from jsonb_array_elements(given) with ordinality as row,
                   jsonb_to_record(row.value) as event (event_id uuid, actor_id bigint, target_id bigint, kind text,
                                                        occurred_at timestamptz, request_id uuid)
             order by least(event.actor_id, event.target_id), greatest(event.actor_id, event.target_id), row.ordinality
        loop
            place := told.place;
            missing := case when not exists (select from duet.users u where u.user_id = told.actor_id) then 'actor_id'
                            when not exists (select from duet.users u where u.user_id = told.target_id) then 'target_id'
                       end;
            if missing is null then
                select one.stored, one.same, one.matched into stored, same, matched
                  from duet.store_interaction(told.event_id, told.actor_id, told.target_id, told.kind, told.occurred_at,
                                              told.request_id, tolerance) as one;
            else
                stored := false;
                same := false;
                matched := false;
            end if;
            return next;
        end loop;
    end
    $$
    """,
    """
    comment on function duet.store_interactions is
        'Stores JSON objects of interactions as `store_interaction` does, and says of each what became of it; `missing`'
        ' names the side that does not exist.'
    """,
)


def upgrade() -> None:
    """Create the function."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop it."""
    op.execute("drop function duet.store_interactions")
