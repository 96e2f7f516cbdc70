"""Erasures: who was asked to be forgotten, known by a salted hash alone, and what was found of them in each place."""

from typing import Final

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

STATEMENTS: Final = (
    """
    create table duet.erasures (
        erasure_id bigint generated always as identity primary key,
        person text[] not null check (cardinality(person) > 0),
        user_id bigint,
        known_as text[],
        known_from timestamptz,
        way text not null check (way in ('api', 'cli', 'restore')),
        actor text not null,
        requested_at timestamptz not null default clock_timestamp(),
        rows_erased_at timestamptz,
        look_again_at timestamptz,
        finished_at timestamptz,
        places jsonb not null default '{}',
        models jsonb not null default '[]',
        check ((user_id is null) = (finished_at is not null)),
        check (finished_at is null or (known_as is null and known_from is null and rows_erased_at is not null))
    )
    """,
    """
    comment on table duet.erasures is
        'One row per erasure. `person` holds the salted hashes of the ids of the person. `user_id`, `known_as` and'
        ' `known_from` say what is still to be looked for, and are null once the erasure is finished.'
    """,
    "create index erasures_person on duet.erasures using gin (person)",
    "create unique index erasures_begun on duet.erasures (user_id) where rows_erased_at is null",
    "create index erasures_open on duet.erasures (erasure_id) where finished_at is null",
    """
    create trigger erasures_stay before delete or truncate on duet.erasures
        for each statement execute function duet.refuse_change()
    """,
    # Hidden and noted in one statement: from its commit on nobody is shown them, whatever becomes of the rest.
    """
    create function duet.begin_erasure(whom bigint, texts text[], hashes text[], by_way text, by_actor text)
        returns bigint language plpgsql volatile as $$
    declare
        found_id bigint;
    begin
        perform from duet.users u where u.user_id = whom for no key update;
        if not found then
            return null;
        end if;
        select erasure_id into found_id from duet.erasures where user_id = whom and rows_erased_at is null;
        if found_id is null then
            insert into duet.erasures (person, user_id, known_as, way, actor)
                values (hashes, whom, texts, by_way, by_actor) returning erasure_id into found_id;
        end if;
        update duet.users u set visible = false where u.user_id = whom and u.visible;
        return found_id;
    end
    $$
    """,
    """
    comment on function duet.begin_erasure is
        'Hides a person and notes that they are to be erased; returns the number of the erasure, that of the one which'
        ' has begun already, or null where nobody has the id.'
    """,
    # Whoever writes about them waits for the lock on their row, and then finds that nobody has the id.
    """
    create function duet.erase_rows(erasure bigint) returns boolean language plpgsql volatile as $$
    declare
        whom bigint;
        since timestamptz;
        people bigint;
        events bigint;
    begin
        select user_id into whom from duet.erasures where erasure_id = erasure and rows_erased_at is null for update;
        if not found then
            return false;
        end if;
        select created_at into since from duet.users u where u.user_id = whom for update;
        since := least(since, (select min(occurred_at) from duet.interactions where actor_id = whom),
                       (select min(occurred_at) from duet.interactions where target_id = whom));
        delete from duet.interactions where actor_id = whom or target_id = whom;
        get diagnostics events = row_count;
        delete from duet.users u where u.user_id = whom;
        get diagnostics people = row_count;
        update duet.erasures set rows_erased_at = clock_timestamp(), known_from = since,
            places = places
                || jsonb_build_object('duet.users', duet.erased_place(people))
                || jsonb_build_object('duet.interactions', duet.erased_place(events))
         where erasure_id = erasure;
        return true;
    end
    $$
    """,
    """
    comment on function duet.erase_rows is
        'Deletes a person and every interaction of theirs or about them; false where that was done before.'
    """,
    """
    create function duet.erased_place(found bigint) returns jsonb language sql stable as $$
        select jsonb_build_object('before', found, 'after', 0, 'looked_at', clock_timestamp())
    $$
    """,
    """
    create function duet.erasure_report(hash text) returns jsonb language sql stable as $$
        select jsonb_build_object(
            'erasure_id', erasure_id, 'person', hash, 'way', way, 'actor', actor,
            'status', case when finished_at is null then 'running' else 'finished' end,
            'requested_at', requested_at, 'rows_erased_at', rows_erased_at, 'finished_at', finished_at,
            'places', coalesce((select jsonb_agg(jsonb_build_object('place', key) || value order by key)
                                  from jsonb_each(places)), '[]'),
            'models', models)
          from duet.erasures where person @> array[hash] order by erasure_id desc limit 1
    $$
    """,
    "comment on function duet.erasure_report is 'A person''s newest erasure, by the salted hash of one of their ids.'",
    # How fresh the people are that the files of a machine hold: from then on nobody erased before is in them.
    "alter table duet.serving_workers add column people_read_at timestamptz",
)
DROPS: Final = (
    "alter table duet.serving_workers drop column people_read_at",
    "drop function duet.erasure_report, duet.erase_rows, duet.begin_erasure, duet.erased_place",
    "drop table duet.erasures",
)


def upgrade() -> None:
    """Create the table and its functions, and the column."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; what was erased stays so, and nobody can ask for its report any more."""
    for statement in DROPS:
        op.execute(statement)
