"""Taking back what was done: `unlike` and `unblock` as kinds, and what they mean for the state of a pair.

`feature_repo.transforms.pairs` says of arrays what `duet.pair_state` says of one pair: change both or none.
"""

from typing import Final

from alembic import op

from infra.migrations.versions import r0009_pair_state as before

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_KINDS: Final = "'like', 'pass', 'superlike', 'message', 'block', 'report'"
STORE_INTERACTION: Final = (
    # As before; a pair is looked at whole only where the like is returned at all, which most are not.
    """
    create or replace function duet.store_interaction(event uuid, actor bigint, target bigint, did text,
                                                      happened_at timestamptz, request uuid, tolerance interval)
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
        if same and did in ('like', 'superlike') and exists (
            select from duet.interactions i
             where i.actor_id = target and i.target_id = actor and i.kind in ('like', 'superlike')
        ) then
            select state.matched_at is not null into matched from duet.pair_state(actor, target, seen_at) as state;
        end if;
        return next;
    end
    $$
    """,
)
STATEMENTS: Final = (
    "alter table duet.interactions drop constraint interactions_kind_check",
    # The old constraint held of every row, and the new one allows more: there is nothing to look through.
    f"""
    alter table duet.interactions add constraint interactions_kind_check
        check (kind in ({_KINDS}, 'unlike', 'unblock')) not valid
    """,
    # Few people take anything back: these indexes are nearly empty, and so a look into them costs next to nothing.
    """
    create index interactions_undone on duet.interactions (actor_id, target_id)
        where kind in ('unlike', 'unblock')
    """,
    "create index interactions_unblocked on duet.interactions (target_id, actor_id) where kind = 'unblock'",
    "drop function duet.pair_state",
    # One SELECT and STABLE, so that the planner puts it in place of the call wherever it stands in FROM.
    """
    create function duet.pair_state(one bigint, other bigint, as_of timestamptz)
        returns table (liked_at timestamptz, liked_back_at timestamptz, separated_at timestamptz,
                       matched_at timestamptz, passed_at timestamptz)
        language sql stable parallel safe as $$
        select sides.liked_at, sides.liked_back_at, sides.separated_at,
               case when sides.separated_at is null and sides.liked_at is not null and sides.liked_back_at is not null
                    then greatest(sides.liked_at, sides.liked_back_at) end,
               sides.passed_at
          from (
            select coalesce(max(u.occurred_at), '-infinity') as ended_at from duet.interactions u
             where u.kind = 'unblock' and u.occurred_at <= as_of
               and ((u.actor_id = one and u.target_id = other) or (u.target_id = one and u.actor_id = other))
               and exists (
                   select from duet.interactions b
                    where b.actor_id = u.actor_id and b.target_id = u.target_id and b.kind = 'block'
                      and b.occurred_at < u.occurred_at and not exists (
                          select from duet.interactions x
                           where x.actor_id = u.actor_id and x.target_id = u.target_id
                             and (x.kind = 'unblock' and x.occurred_at > b.occurred_at
                                  and x.occurred_at < u.occurred_at
                                  or x.kind = 'block' and x.occurred_at = u.occurred_at)))
        ) as blocks, lateral (
            select (
                select min(l.occurred_at) from duet.interactions l
                 where l.actor_id = one and l.target_id = other and l.kind in ('like', 'superlike')
                   and l.occurred_at <= as_of and l.occurred_at > blocks.ended_at and l.occurred_at > coalesce((
                       select max(p.occurred_at) from duet.interactions p
                        where p.actor_id = one and p.target_id = other and p.kind in ('pass', 'unlike')
                          and p.occurred_at <= as_of
                   ), '-infinity')
            ) as liked_at, (
                select min(l.occurred_at) from duet.interactions l
                 where l.actor_id = other and l.target_id = one and l.kind in ('like', 'superlike')
                   and l.occurred_at <= as_of and l.occurred_at > blocks.ended_at and l.occurred_at > coalesce((
                       select max(p.occurred_at) from duet.interactions p
                        where p.actor_id = other and p.target_id = one and p.kind in ('pass', 'unlike')
                          and p.occurred_at <= as_of
                   ), '-infinity')
            ) as liked_back_at, (
                select min(s.occurred_at) from duet.interactions s
                 where s.kind in ('block', 'report') and s.occurred_at <= as_of
                   and ((s.target_id = one and s.actor_id = other) or (s.target_id = other and s.actor_id = one))
                   and (s.kind = 'report' or not exists (
                       select from duet.interactions u
                        where u.actor_id = s.actor_id and u.target_id = s.target_id and u.kind = 'unblock'
                          and u.occurred_at > s.occurred_at and u.occurred_at <= as_of and not exists (
                              select from duet.interactions b
                               where b.actor_id = u.actor_id and b.target_id = u.target_id and b.kind = 'block'
                                 and b.occurred_at = u.occurred_at)))
            ) as separated_at, (
                select max(p.occurred_at) from duet.interactions p
                 where p.actor_id = one and p.target_id = other and p.kind = 'pass' and p.occurred_at <= as_of
                   and not exists (
                       select from duet.interactions l
                        where l.actor_id = one and l.target_id = other and l.kind in ('like', 'superlike')
                          and l.occurred_at > p.occurred_at and l.occurred_at <= as_of)
            ) as passed_at
        ) as sides
    $$
    """,
    """
    comment on function duet.pair_state is
        'As of an instant: since when one likes the other and since when it is returned (nobody passed, took it back or'
        ' ended a block since), the earliest block or report between them that stands, since when they are a match, and'
        ' when one passed on the other where their latest decision is a pass.'
    """,
    *STORE_INTERACTION,
    # Not in SQL, so that it is no part of the plan of whoever asks: most have nothing undone, and then it is two looks
    # into nearly empty indexes.
    """
    create function duet.undone(person bigint)
        returns table (other bigint, is_open boolean, likes boolean, liked_back boolean)
        language plpgsql stable parallel safe rows 1 as $$
    begin
        if not exists (select from duet.interactions i
                        where i.actor_id = person and i.kind in ('unlike', 'unblock'))
           and not exists (select from duet.interactions i where i.target_id = person and i.kind = 'unblock') then
            return;
        end if;
        return query
            select pairs.who, state.liked_at is null and state.passed_at is null and state.separated_at is null,
                   state.liked_at is not null, state.liked_back_at is not null
              from (
                select i.target_id as who from duet.interactions i
                 where i.actor_id = person and i.kind in ('unlike', 'unblock')
                union
                select i.actor_id from duet.interactions i where i.target_id = person and i.kind = 'unblock'
            ) as pairs, duet.pair_state(person, pairs.who, 'infinity') as state;
    end
    $$
    """,
    """
    comment on function duet.undone is
        'About whom a person took something back, or who took back a block of theirs: `is_open` where neither a'
        ' decision of the person nor a separation stands, so that they may be shown again.'
    """,
)


def upgrade() -> None:
    """Allow the kinds, and give the state of a pair its new meaning."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Forget what was taken back, and with it the kinds."""
    op.execute("drop function duet.undone")
    op.execute("drop function duet.pair_state")
    op.execute("drop function duet.store_interaction")
    for statement in before.STATEMENTS:
        op.execute(statement)
    op.execute("drop index duet.interactions_undone")
    op.execute("drop index duet.interactions_unblocked")
    op.execute("delete from duet.interactions where kind in ('unlike', 'unblock')")
    op.execute("alter table duet.interactions drop constraint interactions_kind_check")
    op.execute(f"alter table duet.interactions add constraint interactions_kind_check check (kind in ({_KINDS}))")
