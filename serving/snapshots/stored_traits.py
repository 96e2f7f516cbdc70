"""Reads the traits of everybody from Postgres, which computes the codes of text and flags: no word of them comes here.

The table is read in ranges of its pages, as likes are (`serving.snapshots.stored_likes`).
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import sql

from feature_repo.population.traits import CODE_BYTES, NO_TRAITS, SEPARATOR, TEXT_MARK, GivenTraits
from infra.db.array_columns import take_arrays

_PAGES: Final = 1024
# What `feature_repo.population.traits.trait_code` says of a name and a value.
_CODE: Final = sql.SQL("""
    ('x' || encode(substr(sha256(convert_to(each.key || {separator} || CASE jsonb_typeof(each.value)
        WHEN 'string' THEN {text_mark} || (each.value #>> '{{}}') ELSE each.value::text END, 'UTF8'
    )), 1, {code_bytes}), 'hex'))::bit(64)::bigint
""").format(separator=sql.Literal(SEPARATOR), text_mark=sql.Literal(TEXT_MARK), code_bytes=sql.Literal(CODE_BYTES))
_EVERYBODY: Final = sql.SQL("""
    SELECT block.* FROM generate_series(
        0, pg_relation_size('duet.users') / current_setting('block_size')::bigint, %(pages)s
    ) AS page, LATERAL (
        SELECT each.key, {what} FROM duet.users u, jsonb_each(u.attributes) AS each
        WHERE u.ctid >= ('(' || page || ',0)')::tid AND u.ctid < ('(' || page + %(pages)s || ',0)')::tid
          AND u.visible AND {which}
        GROUP BY each.key, jsonb_typeof(each.value)
    ) AS block
""")
_WORDS_AND_FLAGS: Final = _EVERYBODY.format(
    what=sql.SQL("jsonb_typeof(each.value) = 'string', array_agg(u.user_id), array_agg({})").format(_CODE),
    which=sql.SQL("jsonb_typeof(each.value) IN ('string', 'boolean')"),
)
# What lies beyond 1e30 is no number here, as among features, and some of it no double could hold.
_NUMBERS: Final = _EVERYBODY.format(
    what=sql.SQL("""
        array_agg(u.user_id),
        array_agg(CASE WHEN abs(each.value::numeric) < 1e30 THEN each.value::float8 ELSE 'NaN' END)
    """),
    which=sql.SQL("""
        jsonb_typeof(each.value) = 'number' AND each.key NOT IN (SELECT name FROM duet.attribute_slots)
    """),
)


def everybody(connection: psycopg.Connection[Any], *, pages: int = _PAGES) -> GivenTraits:
    """Read the traits of everybody visible, a range of `pages` of the table at a time."""
    parts: list[GivenTraits] = []
    with take_arrays(connection.cursor(binary=True)) as cursor:
        for name, is_text, user_ids, codes in cursor.stream(_WORDS_AND_FLAGS, {"pages": pages}):
            names, nothing = frozenset({name}), frozenset[str]()
            texts, flags = (names, nothing) if is_text else (nothing, names)
            parts.append(GivenTraits(user_ids, codes, texts, flags))
        for name, user_ids, values in cursor.stream(_NUMBERS, {"pages": pages}):
            numbers = {name: (user_ids, np.array(values, dtype=np.float32))}
            parts.append(replace(NO_TRAITS, numbers=numbers))
    return GivenTraits.together(parts)
