-- What serving of revision 0014 sends to PostgreSQL, statement by statement. Kept as it was: the next schema must take it.

-- name: requesters
SELECT asked.place, found.* FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (user_id, place), LATERAL (
WITH mine AS MATERIALIZED (
    SELECT target_id, kind, occurred_at FROM duet.interactions WHERE actor_id = asked.user_id
), latest AS (
    SELECT DISTINCT ON (target_id) target_id, kind, occurred_at FROM mine
    WHERE kind IN ('like', 'superlike', 'pass') ORDER BY target_id, occurred_at DESC, kind IN ('pass') DESC
), recent AS (
    SELECT * FROM latest ORDER BY occurred_at DESC LIMIT 1000
), apart AS MATERIALIZED (
    SELECT actor_id FROM duet.interactions WHERE target_id = asked.user_id AND kind IN ('block', 'report')
), waiting AS (
    SELECT actor_id, max(occurred_at) FILTER (WHERE kind IN ('like', 'superlike')) AS liked_at,
        (array_agg(kind ORDER BY occurred_at DESC, kind IN ('pass') DESC))[1] IN ('like', 'superlike') AS waits
    FROM duet.interactions
    WHERE target_id = asked.user_id AND kind IN ('like', 'superlike', 'pass')
      AND actor_id NOT IN (SELECT target_id FROM mine WHERE kind IN ('like', 'superlike', 'pass', 'block', 'report'))
    GROUP BY actor_id HAVING bool_or(kind IN ('like', 'superlike')) ORDER BY liked_at DESC, actor_id LIMIT 5000
)
SELECT own.*, known.updated_at,
    (SELECT count(*) FROM mine) + (SELECT count(*) FROM apart),
    ARRAY(SELECT target_id FROM mine WHERE kind IN ('like', 'superlike', 'pass', 'block', 'report')),
    ARRAY(SELECT actor_id FROM apart),
    ARRAY(SELECT target_id FROM recent WHERE kind IN ('like', 'superlike') ORDER BY occurred_at DESC),
    ARRAY(SELECT target_id FROM recent WHERE kind IN ('pass')),
    ARRAY(SELECT actor_id FROM waiting),
    ARRAY(SELECT actor_id FROM waiting WHERE waits ORDER BY liked_at DESC, actor_id)
FROM duet.users known LEFT JOIN LATERAL (
    SELECT 
    u.user_id, u.birth_date, u.gender, u.seeking, u.age_min, u.age_max, u.latitude, u.longitude, u.max_distance_km,
    u.interests, coalesce(length(u.bio), 0) AS bio_length, u.created_at
, u.attributes FROM duet.users u
    WHERE u.user_id = known.user_id AND ($2::timestamptz IS NULL OR known.updated_at > $2::timestamptz) OFFSET 0
) AS own ON true
WHERE known.user_id = asked.user_id
) AS found

-- name: requesters_without_pending_likes
SELECT asked.place, found.* FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (user_id, place), LATERAL (
WITH mine AS MATERIALIZED (
    SELECT target_id, kind, occurred_at FROM duet.interactions WHERE actor_id = asked.user_id
), latest AS (
    SELECT DISTINCT ON (target_id) target_id, kind, occurred_at FROM mine
    WHERE kind IN ('like', 'superlike', 'pass') ORDER BY target_id, occurred_at DESC, kind IN ('pass') DESC
), recent AS (
    SELECT * FROM latest ORDER BY occurred_at DESC LIMIT 1000
), apart AS MATERIALIZED (
    SELECT actor_id FROM duet.interactions WHERE target_id = asked.user_id AND kind IN ('block', 'report')
)
SELECT own.*, known.updated_at,
    (SELECT count(*) FROM mine) + (SELECT count(*) FROM apart),
    ARRAY(SELECT target_id FROM mine WHERE kind IN ('like', 'superlike', 'pass', 'block', 'report')),
    ARRAY(SELECT actor_id FROM apart),
    ARRAY(SELECT target_id FROM recent WHERE kind IN ('like', 'superlike') ORDER BY occurred_at DESC),
    ARRAY(SELECT target_id FROM recent WHERE kind IN ('pass'))
FROM duet.users known LEFT JOIN LATERAL (
    SELECT 
    u.user_id, u.birth_date, u.gender, u.seeking, u.age_min, u.age_max, u.latitude, u.longitude, u.max_distance_km,
    u.interests, coalesce(length(u.bio), 0) AS bio_length, u.created_at
, u.attributes FROM duet.users u
    WHERE u.user_id = known.user_id AND ($2::timestamptz IS NULL OR known.updated_at > $2::timestamptz) OFFSET 0
) AS own ON true
WHERE known.user_id = asked.user_id
) AS found

-- name: standings
SELECT asked.place, found.*
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS asked (user_id, low, high, place), LATERAL (
WITH allowed AS MATERIALIZED (
    SELECT u.user_id, $5::timestamptz IS NULL OR u.updated_at > $5::timestamptz AS changed
    FROM duet.users u
    WHERE u.user_id = ANY(($4::bigint[])[asked.low:asked.high])
      AND u.visible
      AND u.user_id NOT IN (SELECT target_id FROM duet.interactions
                            WHERE actor_id = asked.user_id AND kind IN ('like', 'superlike', 'pass', 'block', 'report'))
      AND u.user_id NOT IN (SELECT actor_id FROM duet.interactions
                            WHERE target_id = asked.user_id AND kind IN ('block', 'report'))
)
SELECT ARRAY(SELECT user_id FROM allowed ORDER BY user_id),
    ARRAY(SELECT user_id FROM allowed WHERE changed),
    (SELECT count(*) FROM duet.interactions WHERE actor_id = asked.user_id)
        + (SELECT count(*) FROM duet.interactions WHERE target_id = asked.user_id AND kind IN ('block', 'report')),
    (SELECT updated_at FROM duet.users WHERE user_id = asked.user_id)
) AS found

-- name: standings_with_interests
SELECT asked.place, found.*
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS asked (user_id, low, high, place), LATERAL (
WITH allowed AS MATERIALIZED (
    SELECT u.user_id, $5::timestamptz IS NULL OR u.updated_at > $5::timestamptz AS changed
    FROM duet.users u
    WHERE u.user_id = ANY(($4::bigint[])[asked.low:asked.high])
      AND u.visible AND u.interests && $6::text[]
      AND u.user_id NOT IN (SELECT target_id FROM duet.interactions
                            WHERE actor_id = asked.user_id AND kind IN ('like', 'superlike', 'pass', 'block', 'report'))
      AND u.user_id NOT IN (SELECT actor_id FROM duet.interactions
                            WHERE target_id = asked.user_id AND kind IN ('block', 'report'))
)
SELECT ARRAY(SELECT user_id FROM allowed ORDER BY user_id),
    ARRAY(SELECT user_id FROM allowed WHERE changed),
    (SELECT count(*) FROM duet.interactions WHERE actor_id = asked.user_id)
        + (SELECT count(*) FROM duet.interactions WHERE target_id = asked.user_id AND kind IN ('block', 'report')),
    (SELECT updated_at FROM duet.users WHERE user_id = asked.user_id)
) AS found

-- name: profiles
SELECT 
    u.user_id, u.birth_date, u.gender, u.seeking, u.age_min, u.age_max, u.latitude, u.longitude, u.max_distance_km,
    u.interests, coalesce(length(u.bio), 0) AS bio_length, u.created_at
 FROM duet.users u WHERE u.user_id = ANY($1::bigint[]) AND u.visible

-- name: some_visible
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
SELECT 
    u.user_id, u.birth_date, u.gender, u.seeking, u.age_min, u.age_max, u.latitude, u.longitude, u.max_distance_km,
    u.interests, coalesce(length(u.bio), 0) AS bio_length, u.created_at
, CASE WHEN (SELECT count(*) FROM before) < $2 OR u.user_id = before.user_id THEN 1.0::float8
    ELSE mod(u.user_id - before.user_id + start.width, start.width)::float8 / start.width END
FROM start, drawn JOIN duet.users u USING (user_id) LEFT JOIN before ON before.place = $2 + 1 - drawn.place
ORDER BY drawn.place

-- name: names
SELECT user_id, external_id, attributes->>'source_id' FROM duet.users
WHERE user_id = ANY($1::bigint[]) AND (external_id IS NOT NULL OR attributes ? 'source_id')

-- name: by_name
SELECT external_id, user_id FROM duet.users WHERE external_id = ANY($1::text[])

-- name: matches
WITH latest AS (
    SELECT target_id AS other FROM duet.interactions WHERE actor_id = $1 AND kind IN ('like', 'superlike')
    GROUP BY target_id ORDER BY max(occurred_at) DESC, target_id LIMIT 5000
), mutual AS (
    SELECT other FROM latest JOIN duet.users u ON u.user_id = other AND u.visible
    WHERE other IN (SELECT actor_id FROM duet.interactions WHERE target_id = $1 AND kind IN ('like', 'superlike'))
)
SELECT other, state.matched_at FROM mutual, duet.pair_state($1, other, now()) AS state
WHERE (state.matched_at, other) < ($2, $3) ORDER BY state.matched_at DESC, other DESC LIMIT $4

-- name: likes
WITH latest AS (
    SELECT actor_id AS other FROM duet.interactions WHERE target_id = $1 AND kind IN ('like', 'superlike')
      AND actor_id NOT IN (SELECT target_id FROM duet.interactions WHERE actor_id = $1 AND kind IN ('like', 'superlike', 'pass', 'block', 'report'))
    GROUP BY actor_id ORDER BY max(occurred_at) DESC, actor_id LIMIT 5000
)
SELECT other, state.liked_back_at FROM latest JOIN duet.users u ON u.user_id = other AND u.visible,
    duet.pair_state($1, other, now()) AS state
WHERE state.separated_at IS NULL AND (state.liked_back_at, other) < ($2, $3)
ORDER BY state.liked_back_at DESC, other DESC LIMIT $4

-- name: store_interaction
SELECT stored, same, matched FROM duet.store_interaction($1, $2, $3, $4, $5, $6, $7)

-- name: store_interactions
SELECT place, missing, stored, same, matched FROM duet.store_interactions($1::text::jsonb, $2)

-- name: store_people
SELECT place, id, status, reason FROM duet.store_people($1::text::jsonb, $2, $3)

-- name: read_person
SELECT birth_date, gender, seeking, age_min, age_max, latitude::text::float8, longitude::text::float8,
    max_distance_km::text::float8, interests, bio, visible, attributes, created_at, last_active_at, updated_at
FROM duet.users WHERE user_id = $1

-- name: insert_impressions
INSERT INTO duet.impressions
    (request_id, user_id, target_id, position, score, propensity, source, release, variant, level, shown_at)
SELECT * FROM unnest(
    $1::uuid[], $2::bigint[], $3::bigint[], $4::smallint[], $5::real[], $6::real[], $7::text[], $8::text[],
    $9::text[], $10::smallint[], $11::timestamptz[])
ON CONFLICT DO NOTHING

-- name: insert_answers
INSERT INTO duet.answers
    (request_id, user_id, experiment, arm, variant, release, level, reason, shown, took_ms, cached, failed, answered_at)
SELECT * FROM unnest(
    $1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[],
    $9::smallint[], $10::real[], $11::boolean[], $12::boolean[], $13::timestamptz[])
ON CONFLICT DO NOTHING

-- name: heartbeat
insert into duet.serving_workers (worker_id, host, pid, release, refused, challenger, challenger_refused, pin_id, copies) values ($1, $2, $3, $4, $5, $6, $7,         $8, $9) on conflict (worker_id) do update set release = excluded.release, refused = excluded.refused,  challenger = excluded.challenger, challenger_refused = excluded.challenger_refused,  pin_id = excluded.pin_id, copies = excluded.copies, seen_at = clock_timestamp()
