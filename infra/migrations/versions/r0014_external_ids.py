"""Names that apps have for people: an external id, beside the number by which everything else knows them."""

from typing import Final

from alembic import op

from infra.migrations.versions import r0012_stored_people as before

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS: Final = (
    """
    alter table duet.users add column external_id text
        check (length(external_id) between 1 and 128 and external_id !~ '^[0-9]+$')
    """,
    "create unique index users_external on duet.users (external_id) include (user_id) where external_id is not null",
    "drop function duet.store_people",
    # Rows are taken in the order of ids, as an import takes them, so that two calls never wait for each other. A row is
    # locked before it is changed: two changes of different columns both stay.
    """
    create function duet.store_people(given jsonb, whole boolean, may_create boolean)
        returns table (place int, id bigint, status text, reason text)
        language plpgsql volatile as $$
    declare
        new_one constant jsonb := '{"seeking": [], "interests": [], "attributes": {}, "visible": true}';
        told jsonb;
        old duet.users;
        fresh duet.users;
        nulls text[];
        wished text;
    begin
        perform duet.claim_attribute_slots(given);
        for place, told in
            select row.ordinality - 1, row.value from jsonb_array_elements(given) with ordinality as row
             order by (row.value->>'user_id')::bigint, row.ordinality
        loop
            reason := null;
            wished := told->>'external_id';
            loop
                id := (told->>'user_id')::bigint;
                if wished is null then
                    select u.* into old from duet.users u where u.user_id = id for no key update;
                else
                    select u.* into old from duet.users u where u.external_id = wished for no key update;
                    id := coalesce(old.user_id, id);
                    while old.user_id is null and exists (select from duet.users u where u.user_id = id) loop
                        id := 1 + floor(random() * 9007199254740991);  -- their number is somebody else's
                    end loop;
                end if;
                if old.user_id is not null then
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
                fresh := jsonb_populate_record(fresh, told - 'attributes' - 'user_id' - 'external_id');
                fresh.user_id := id;
                fresh.external_id := coalesce(old.external_id, wished, told->>'known_as');
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
                    insert into duet.users select fresh.* on conflict do nothing;
                    continue when not found;  -- somebody else has just created them
                elsif fresh is not distinct from old then
                    status := 'unchanged';
                else
                    update duet.users u set birth_date = fresh.birth_date, gender = fresh.gender,
                        seeking = fresh.seeking, age_min = fresh.age_min, age_max = fresh.age_max,
                        latitude = fresh.latitude, longitude = fresh.longitude,
                        max_distance_km = fresh.max_distance_km, interests = fresh.interests, bio = fresh.bio,
                        created_at = fresh.created_at, last_active_at = fresh.last_active_at,
                        visible = fresh.visible, attributes = fresh.attributes, external_id = fresh.external_id
                     where u.user_id = id;
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
        'Creates or changes people by JSON objects of columns, each with the user_id it is to have: `external_id` names'
        ' who has none yet, `known_as` who has theirs from a hash. What an object does not name stays, or with `whole`'
        ' takes its default (visibility and times stay). Attributes are merged, with `whole` replaced, and null takes'
        ' one away. Says for each object what became of it.'
    """,
)
DROPS: Final = (
    "drop function duet.store_people",
    "drop index duet.users_external",
    "alter table duet.users drop column external_id",
    before.STATEMENTS[0],
)


def upgrade() -> None:
    """Add the column, and let people be stored by it."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop the column, and put the former function back."""
    for statement in DROPS:
        op.execute(statement)
