"""How far a stream is stored: written with what was stored, so that an entry that comes again is known."""

from typing import Final

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

STATEMENTS: Final = (
    """
    create table duet.stream_positions (
        stream text primary key,
        version bigint not null,
        upto text collate "C" not null,
        unsettled text[] collate "C" not null
    )
    """,
    """
    comment on table duet.stream_positions is
        'How far each stream that is stored in order was read: all entries up to `upto` are stored but those in'
        ' `unsettled`. Ids are padded, so that they sort as text. `version` is one more after each statement.'
    """,
    # Whoever read the stream before another one stored something of it stores nothing: it may be older.
    """
    create function duet.store_streamed_people(given jsonb, whole boolean, may_create boolean, source text,
                                               read_at bigint, entries text[], others text[])
        returns table (place int, id bigint, status text, reason text)
        language plpgsql volatile as $$
    declare
        refused int[];
        last_one text collate "C";
    begin
        insert into duet.stream_positions values (source, 0, '', '{}') on conflict do nothing;
        select max(entry collate "C") into last_one from unnest(entries || others) as entry;
        update duet.stream_positions p
           set version = p.version + 1, upto = greatest(p.upto, last_one),
               unsettled = others || array(select late from unnest(p.unsettled) as late where late > last_one)
         where p.stream = source and p.version = read_at;
        if not found then
            return;
        end if;
        for place, id, status, reason in
            select one.place, one.id, one.status, one.reason from duet.store_people(given, whole, may_create) as one
        loop
            if status = 'refused' then
                refused := refused || place;
            end if;
            return next;
        end loop;
        if refused is not null then
            update duet.stream_positions p
               set unsettled = p.unsettled || array(select entries[row + 1] from unnest(refused) as row)
             where p.stream = source;
        end if;
    end
    $$
    """,
    """
    comment on function duet.store_streamed_people is
        'Stores people as `store_people` does, and in the same transaction how far the stream `source` is stored:'
        ' `entries` are the ids of the entries of `given`, `others` those of entries read with them that are not to be'
        ' stored. Returns nothing, and stores nothing, where the position is another one than the version `read_at`.'
    """,
)


def upgrade() -> None:
    """Create the table and the function."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("drop function duet.store_streamed_people")
    op.execute("drop table duet.stream_positions")
