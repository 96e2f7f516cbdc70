"""Reads the traits of everybody from Postgres, which computes their codes: no word of them comes here.

The table is read in ranges of its pages, as likes are (`serving.snapshots.stored_likes`).
"""

from typing import Any, Final

import psycopg
from psycopg import sql

from feature_repo.population.traits import CODE_BYTES, SEPARATOR, TEXT_MARK, GivenTraits
from infra.db.array_columns import take_arrays

_PAGES: Final = 1024
# What `feature_repo.population.traits.trait_code` says of a name and a value.
_CODE: Final = sql.SQL("""
    ('x' || encode(substr(sha256(convert_to(each.key || {separator} || CASE jsonb_typeof(each.value)
        WHEN 'string' THEN {text_mark} || (each.value #>> '{{}}') ELSE each.value::text END, 'UTF8'
    )), 1, {code_bytes}), 'hex'))::bit(64)::bigint
""").format(separator=sql.Literal(SEPARATOR), text_mark=sql.Literal(TEXT_MARK), code_bytes=sql.Literal(CODE_BYTES))
_ALL: Final = sql.SQL("""
    SELECT block.* FROM generate_series(
        0, pg_relation_size('duet.users') / current_setting('block_size')::bigint, %(pages)s
    ) AS page, LATERAL (
        SELECT each.key, jsonb_typeof(each.value) = 'string', array_agg(u.user_id), array_agg({code})
        FROM duet.users u, jsonb_each(u.attributes) AS each
        WHERE u.ctid >= ('(' || page || ',0)')::tid AND u.ctid < ('(' || page + %(pages)s || ',0)')::tid
          AND u.visible AND jsonb_typeof(each.value) IN ('string', 'boolean')
        GROUP BY 1, 2
    ) AS block
""").format(code=_CODE)


def everybody(connection: psycopg.Connection[Any], *, pages: int = _PAGES) -> GivenTraits:
    """Read the traits of everybody visible in one pass over the table, `pages` at a time."""
    parts: list[GivenTraits] = []
    with take_arrays(connection.cursor(binary=True)) as cursor:
        for name, is_text, user_ids, codes in cursor.stream(_ALL, {"pages": pages}):
            names = frozenset({name})
            texts, flags = (names, frozenset[str]()) if is_text else (frozenset[str](), names)
            parts.append(GivenTraits(user_ids, codes, texts, flags))
    return GivenTraits.together(parts)
