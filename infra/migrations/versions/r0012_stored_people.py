"""The one way in for people whom apps create and change, a row at a time."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    # Rows are taken in the order of ids, as an import takes them, so that two calls never wait for each other. A row is
    # locked before it is changed: two changes of different columns both stay.
    """
    create function duet.store_people(given jsonb, whole boolean, may_create boolean)
        returns table (place int, status text, reason text)
        language plpgsql volatile as $$
    declare
        new_one constant jsonb := '{"seeking": [], "interests": [], "attributes": {}, "visible": true}';
        told jsonb;
        old duet.users;
        fresh duet.users;
        nulls text[];
    begin
        perform duet.claim_attribute_slots(given);
        for place, told in
            select row.ordinality - 1, row.value from jsonb_array_elements(given) with ordinality as row
             order by (row.value->>'user_id')::bigint, row.ordinality
        loop
            reason := null;
            loop
                select u.* into old from duet.users u where u.user_id = (told->>'user_id')::bigint for no key update;
                if found then
                    fresh := old;
                    if whole then
                        fresh := jsonb_populate_record(null::duet.users, new_one);
                        fresh.visible := old.visible;
                        fresh.created_at := old.created_at;
                        fresh.last_active_at := old.last_active_at;
                    end if;
                    status := 'updated';
                else
                    fresh := jsonb_populate_record(null::duet.users, new_one);
                    status := case when may_create then 'created' else 'unknown' end;
                    exit when not may_create;
                end if;
                select coalesce(array_agg(each.key), '{}') into nulls
                  from jsonb_each(told->'attributes') as each where each.value = 'null';
                fresh.attributes := (fresh.attributes || coalesce(told->'attributes', '{}')) - nulls;
                fresh := jsonb_populate_record(fresh, told - 'attributes');
                -- Activity never moves back: interactions may have told of a later moment.
                fresh.last_active_at := greatest(old.last_active_at, fresh.last_active_at);
                fresh.created_at := coalesce(fresh.created_at, now());
                fresh.updated_at := coalesce(old.updated_at, now());
                if fresh.age_min > fresh.age_max then
                    reason := 'out_of_range: age_min > age_max';
                elsif (fresh.latitude is null) <> (fresh.longitude is null) then
                    reason := 'missing_value: '
                        || case when fresh.latitude is null then 'latitude' else 'longitude' end;
                end if;
                if reason is not null then
                    status := 'refused';
                elsif status = 'created' then
                    insert into duet.users select fresh.* on conflict (user_id) do nothing;
                    continue when not found;  -- somebody else has just created them
                elsif fresh is not distinct from old then
                    status := 'unchanged';
                else
                    update duet.users u set birth_date = fresh.birth_date, gender = fresh.gender,
                        seeking = fresh.seeking, age_min = fresh.age_min, age_max = fresh.age_max,
                        latitude = fresh.latitude, longitude = fresh.longitude,
                        max_distance_km = fresh.max_distance_km, interests = fresh.interests, bio = fresh.bio,
                        created_at = fresh.created_at, last_active_at = fresh.last_active_at,
                        visible = fresh.visible, attributes = fresh.attributes
                     where u.user_id = fresh.user_id;
                end if;
                exit;
            end loop;
            return next;
        end loop;
    end
    $$
    """,
    """
    comment on function duet.store_people is
        'Creates or changes people by JSON objects of columns, each with a user_id: what an object does not name stays,'
        ' or with `whole` takes its default (visibility and times stay). Attributes are merged, with `whole` replaced,'
        ' and null takes one away. Says for each object what became of it.'
    """,
    # As an import does, and never beside one: it may hold the slots it has claimed for minutes.
    """
    create function duet.claim_attribute_slots(given jsonb) returns void language plpgsql volatile as $$
    declare
        wanted text[];
    begin
        select array_agg(distinct each.key) into wanted
          from jsonb_array_elements(given) as row, jsonb_each(row->'attributes') as each
         where jsonb_typeof(each.value) = 'number'
           and each.key not in (select name from duet.attribute_slots);
        if wanted is not null and pg_try_advisory_xact_lock(hashtext('duet.import')) then
            insert into duet.attribute_slots (name, slot)
                select name.name, free.slot
                  from (select name, row_number() over (order by name) from unnest(wanted) as name
                         where name not in (select s.name from duet.attribute_slots s)) as name (name, n)
                  join (select slot, row_number() over (order by slot) from generate_series(0, 23) as slot
                         where slot not in (select s.slot from duet.attribute_slots s)) as free (slot, n) using (n);
        end if;
    end
    $$
    """,
)
DROPS = (
    "drop function duet.store_people",
    "drop function duet.claim_attribute_slots",
)


def upgrade() -> None:
    """Create the functions."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    for statement in DROPS:
        op.execute(statement)
