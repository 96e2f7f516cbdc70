"""The state of a pair of people, and the one way in for what one of them did about the other.

`feature_repo.transforms.pairs` says of arrays what `duet.pair_state` says of one pair: change both or none.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = (
    # One SELECT and STABLE, so that the planner puts it in place of the call wherever it stands in FROM.
    """
    create function duet.pair_state(one bigint, other bigint, as_of timestamptz)
        returns table (liked_at timestamptz, liked_back_at timestamptz, separated_at timestamptz,
                       matched_at timestamptz)
        language sql stable parallel safe as $$
        select sides.*, case when sides.separated_at is null and sides.liked_at is not null
                              and sides.liked_back_at is not null
                             then greatest(sides.liked_at, sides.liked_back_at) end
          from (
            select (
                select min(l.occurred_at) from duet.interactions l
                 where l.actor_id = one and l.target_id = other and l.kind in ('like', 'superlike')
                   and l.occurred_at <= as_of and l.occurred_at > coalesce((
                       select max(p.occurred_at) from duet.interactions p
                        where p.actor_id = one and p.target_id = other and p.kind = 'pass' and p.occurred_at <= as_of
                   ), '-infinity')
            ) as liked_at, (
                select min(l.occurred_at) from duet.interactions l
                 where l.actor_id = other and l.target_id = one and l.kind in ('like', 'superlike')
                   and l.occurred_at <= as_of and l.occurred_at > coalesce((
                       select max(p.occurred_at) from duet.interactions p
                        where p.actor_id = other and p.target_id = one and p.kind = 'pass' and p.occurred_at <= as_of
                   ), '-infinity')
            ) as liked_back_at, (
                select min(s.occurred_at) from duet.interactions s
                 where s.kind in ('block', 'report') and s.occurred_at <= as_of
                   and ((s.target_id = one and s.actor_id = other) or (s.target_id = other and s.actor_id = one))
            ) as separated_at
        ) as sides
    $$
    """,
    """
    comment on function duet.pair_state is
        'Since when one likes the other as of an instant (their latest decision about them is a like), since when it is'
        ' returned, when one of them first blocked or reported the other, and since when they are a match.'
    """,
    # Two who like each other at the same instant take turns, so that the second sees the first. The statements after
    # the lock each see what was committed before them.
    """
    create function duet.store_interaction(event uuid, actor bigint, target bigint, did text, happened_at timestamptz,
                                           request uuid, tolerance interval)
        returns table (stored boolean, same boolean, matched boolean)
        language plpgsql volatile as $$
    declare
        seen_at timestamptz;
    begin
        if did <> 'message' then
            perform pg_advisory_xact_lock(
                hashint8extended(least(actor, target), hashint8extended(greatest(actor, target), 0)));
        end if;
        seen_at := clock_timestamp();
        stored := false;
        matched := false;
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
        if same and did in ('like', 'superlike') then
            select state.matched_at is not null into matched from duet.pair_state(actor, target, seen_at) as state;
        end if;
        return next;
    end
    $$
    """,
    """
    comment on function duet.store_interaction is
        'Stores what one person did about another, once per event id and never later than now; `same` is null where it'
        ' was refused because it lies in the future.'
    """,
)
DROPS = (
    "drop function duet.store_interaction",
    "drop function duet.pair_state",
)


def upgrade() -> None:
    """Create the functions."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DROPS:
        op.execute(statement)
