"""What a request asks of others beside its hard preferences, as Postgres judges it: interests and attributes.

Memory rounds numbers and hashes words; here both are compared as they are stored.
"""

from typing import Final

from pydantic_core import to_json

from serving.api.recommendation_models import Filters

# Of a person `u`: where a number is asked for, a flag counts as 1 or 0, and whatever else is no number meets nothing.
# Where text or a flag is asked for, only the same meets it: a list is no text, though JSON says that it is contained.
_FITTING: Final = """
  AND NOT EXISTS (
    SELECT FROM jsonb_to_recordset({wishes}) AS wish (name text, gte numeric, lte numeric, among jsonb, traits jsonb),
        LATERAL (SELECT CASE jsonb_typeof(u.attributes -> wish.name)
            WHEN 'number' THEN (u.attributes ->> wish.name)::numeric
            WHEN 'boolean' THEN (u.attributes ->> wish.name)::boolean::int::numeric END AS value) AS own
    WHERE (CASE WHEN wish.traits IS NOT NULL
        THEN wish.traits @> (u.attributes -> wish.name)
            AND jsonb_typeof(u.attributes -> wish.name) IN ('string', 'boolean')
        ELSE own.value >= coalesce(wish.gte, own.value) AND own.value <= coalesce(wish.lte, own.value)
            AND (wish.among IS NULL OR wish.among @> to_jsonb(own.value)) END) IS NOT TRUE)"""
WANTED: Final = " AND ($6::text[] IS NULL OR u.interests && $6::text[])" + _FITTING.replace(
    "{wishes}", "coalesce($7::text::jsonb, '[]')"
)
"""Ends the condition of who may be shown, with the interests as $6 and `wishes_of` attributes as $7, or null each."""
FITTING: Final = "\nWHERE true" + _FITTING.replace("{wishes}", "$3::text::jsonb")
"""The condition of who is drawn, with `wishes_of` attributes as $3."""
# A random point of the id range and the visible people after it, wrapping around: no sequential scan at any size.
# Somebody is drawn where the point falls behind whoever stands $2 visible people before them: `before` counts back from
# the point as `drawn` counts on, so that the two that belong together are known without reading anybody else.
SOME_VISIBLE: Final = """
WITH span AS (SELECT min(user_id) AS low, max(user_id) AS high FROM duet.users),
start AS (SELECT low + floor($1::float8 * (high - low + 1))::bigint AS id, high - low + 1 AS width FROM span),
drawn AS MATERIALIZED (SELECT user_id, row_number() OVER () AS place FROM (
    (SELECT user_id FROM duet.users u, start WHERE u.visible AND user_id >= start.id ORDER BY user_id LIMIT $2)
    UNION ALL
    (SELECT user_id FROM duet.users u, start WHERE u.visible AND user_id < start.id ORDER BY user_id LIMIT $2)
    LIMIT $2) AS after),
before AS MATERIALIZED (SELECT user_id, row_number() OVER () AS place FROM (
    (SELECT user_id FROM duet.users u, start WHERE u.visible AND user_id < start.id ORDER BY user_id DESC LIMIT $2)
    UNION ALL
    (SELECT user_id FROM duet.users u, start WHERE u.visible AND user_id >= start.id ORDER BY user_id DESC LIMIT $2)
    LIMIT $2) AS earlier)
SELECT {profile}, CASE WHEN (SELECT count(*) FROM before) < $2 OR u.user_id = before.user_id THEN 1.0::float8
    ELSE mod(u.user_id - before.user_id + start.width, start.width)::float8 / start.width END
FROM start, drawn JOIN duet.users u USING (user_id) LEFT JOIN before ON before.place = $2 + 1 - drawn.place{fitting}
ORDER BY drawn.place
"""


def wishes_of(filters: Filters | None) -> str | None:
    """Return what is asked of attributes, as the statements take it: JSON; None where nothing is."""
    if filters is None or filters.attributes is None:
        return None
    return to_json(
        [
            {"name": name, "gte": wish.gte, "lte": wish.lte, "among": wish.numbers, "traits": wish.traits or None}
            for name, wish in sorted(filters.attributes.items())
        ]
    ).decode()
