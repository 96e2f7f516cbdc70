"""The compiled loops behind ages, distances, eligibility, content and the ranking vector.

Every row is computed on its own, in float64 unless said otherwise, so training and serving give equal bits. Profiles
come as packed rows, and `p` names the place of each of their columns: see `places`.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled

Array = NDArray[Any]

EARTH_DIAMETER_KM: Final = 2 * 6371.0088
DAYS_PER_YEAR: Final = 365.2425
RADIANS: Final = math.pi / 180.0
KM_PER_DEGREE: Final = EARTH_DIAMETER_KM / 2.0 * RADIANS
_BLOCK: Final = 64


@compiled
def unit_vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    """Return a point on the unit sphere; degrees in, NaN stays NaN."""
    phi, lam = latitude * RADIANS, longitude * RADIANS
    around = math.cos(phi)
    return around * math.cos(lam), around * math.sin(lam), math.sin(phi)


@compiled
def distance_km(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Return the great-circle distance of two unit vectors in km, NaN where one is."""
    dx, dy, dz = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    half = math.sqrt(dx * dx + dy * dy + dz * dz) * 0.5
    return EARTH_DIAMETER_KM * math.asin(1.0 if half > 1.0 else half)


@compiled
def unit_vectors(latitude: Array, longitude: Array) -> Array:
    """Return float64[3, n] of float64[n] degrees."""
    out = np.empty((3, len(latitude)))
    for i in range(len(latitude)):
        out[0, i], out[1, i], out[2, i] = unit_vector(latitude[i], longitude[i])
    return out


@compiled
def distances_km(a: Array, b: Array) -> Array:
    """Return float64[n] of unit vectors float64[3, n]; one of a side meets all of the other."""
    n = max(a.shape[1], b.shape[1]) if min(a.shape[1], b.shape[1]) else 0
    out = np.empty(n)
    for i in range(n):
        j, k = min(i, a.shape[1] - 1), min(i, b.shape[1] - 1)
        out[i] = distance_km((a[0, j], a[1, j], a[2, j]), (b[0, k], b[1, k], b[2, k]))
    return out


@compiled
def code(value: float) -> int:
    """Return a gender code or a mask of them; what is not known is 0."""
    return int(value) if value > 0 else 0


@compiled
def _stands_in(ascending: Array, wanted: int) -> bool:
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low < len(ascending) and ascending[low] == wanted


@compiled
def _near(latitude: float, longitude: float, limit: float, own: Any) -> bool:
    """Say whether a home is within its own limit and those that `own` holds; see `accepted`."""
    nearest = own.known_within_km
    nearest = limit if limit < nearest else nearest
    nearest = own.max_distance_km if own.max_distance_km < nearest else nearest
    if nearest == np.inf:
        return True
    # Most homes are so near or so far that degrees alone decide, with room for any rounding. None of this holds of NaN.
    north, east = abs(latitude - own.latitude) * KM_PER_DEGREE, abs(longitude - own.longitude) * KM_PER_DEGREE
    if north > nearest * 1.001 + 0.1:
        return False
    if north + east < nearest * 0.999 - 0.1:
        return True
    distance = distance_km((own.x, own.y, own.z), unit_vector(latitude, longitude))
    # Comparisons with NaN are False: an unknown home passes, and so does whoever sets no limit.
    if distance > limit or distance > own.max_distance_km:
        return False
    return bool(own.known_within_km == np.inf or distance <= own.known_within_km)


@compiled
def _fits(theirs: Array, p: Any, own: Any, interests: Array) -> bool:
    """Say whether a profile and the one that `own` describes accept each other."""
    gender, seeking, wanted = code(own.gender), code(own.seeking), code(theirs[p.seeking])
    if (seeking and not seeking >> code(theirs[p.gender]) & 1) or (wanted and not wanted >> gender & 1):
        return False
    born = theirs[p.birth_day]
    if own.latest_birth_day != np.inf and not born <= own.latest_birth_day:
        return False
    if own.after_birth_day != -np.inf and not born > own.after_birth_day:
        return False
    if theirs[p.age_min] > own.age_for_minimum or theirs[p.age_max] < own.age_for_maximum:
        return False
    if not _near(float(theirs[p.latitude]), float(theirs[p.longitude]), theirs[p.max_distance_km], own):
        return False
    shared = len(interests) == 0
    for word in range(len(interests)):
        shared |= (int(theirs[p.interests_00 + word]) & int(interests[word])) != 0
    return shared


@compiled
def accepted(
    user_ids: Array, profiles: Array, late_ids: Array, late_profiles: Array, positions: Array, p: Array,
    own_id: int, own: Array, interests: Array, excluded: Array,
) -> Array:  # fmt: skip
    """Return bool[m]: may those at `positions` be shown to one person; those beyond the last profile are late ones.

    `own` is one record. `latest_birth_day` (infinity: any, else unknown ones do not fit) and `after_birth_day`
    (-infinity: any) bound whom they want; `age_for_minimum` and `age_for_maximum` are their own age against a lower and
    an upper bound; x, y, z is their home, `max_distance_km` their limit, and `known_within_km` one that an unknown home
    does not meet (infinity: none). Of `interests` float32 words, unless they are empty, one bit is wanted; `excluded`
    int64 ascend. A position of -1 is nobody.
    """
    n, m, width = len(user_ids), len(positions), profiles.shape[1]
    out = np.zeros(m, dtype=np.bool_)
    ids, block = np.empty(_BLOCK, dtype=np.int64), np.empty((_BLOCK, width), dtype=profiles.dtype)
    for start in range(0, m, _BLOCK):
        end = min(start + _BLOCK, m)
        for i in range(start, end):  # copies of rows that no cache holds do not wait for each other: decisions would
            row, j = positions[i], i - start
            if row < 0:
                ids[j] = own_id
            elif row < n:
                ids[j] = user_ids[row]
                for column in range(width):
                    block[j, column] = profiles[row, column]
            else:
                ids[j] = late_ids[row - n]
                for column in range(width):
                    block[j, column] = late_profiles[row - n, column]
        for i in range(start, end):
            j = i - start
            out[i] = ids[j] != own_id and _fits(block[j], p[0], own[0], interests) and not _stands_in(excluded, ids[j])
    return out


@compiled
def _bits(word: int) -> int:
    """Return how many of 32 bits are set."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    return (((word + (word >> 4)) & 0x0F0F0F0F) * 0x01010101 & 0xFFFFFFFF) >> 24


@compiled
def _interests(a: Array, b: Array, first: int, n_words: int) -> tuple[float, float]:
    """Return how many interest buckets both have, and their Jaccard index, NaN where nobody has any."""
    both = either = 0
    for word in range(first, first + n_words):
        left, right = int(a[word]), int(b[word])
        both += _bits(left & right)
        either += _bits(left | right)
    return float(both), both / either if either else np.nan


@compiled
def _gaps(out: Array, a: Array, b: Array) -> None:
    """Write |a - b| / max(|a|, |b|, 1) of two persons' attributes in float32, NaN where one is."""
    for slot in range(len(out)):
        scale = np.float32(1.0)
        scale = max(scale, abs(a[slot]))
        scale = max(scale, abs(b[slot]))
        out[slot] = abs(a[slot] - b[slot]) / scale


@compiled
def _mean_known(values: Array) -> np.float32:
    """Return the mean of the values that are not NaN, as a float32, NaN where there is none."""
    total, known = 0.0, 0
    for value in values:
        if not math.isnan(value):
            total += float(value)
            known += 1
    return np.float32(total / known) if known else np.float32(np.nan)


@compiled
def content_scores(
    a_profile: Array, a_attributes: Array, b_profile: Array, b_attributes: Array, rows: Array, p: Array,
    n_words: int, days: Array, weights: Array,
) -> Array:  # fmt: skip
    """Return float32[n] in 0..1: how close the profiles of `a` and of `b` at `rows` are; one of a side meets all.

    `days` float64 (one or n) since 1970; `weights` is one record: those of interests, age, distance and attributes, and
    the age gap in years and the distance in km at which closeness is one half.
    """
    c, w = p[0], weights[0]
    # Read once: the compiler cannot know that `out` is not part of the records.
    birth_day, latitude, longitude, first_word = c.birth_day, c.latitude, c.longitude, c.interests_00
    by_interests, by_age, by_distance, by_attributes = w.interests, w.age, w.distance, w.attributes
    half_age_gap, half_distance = w.half_age_gap, w.half_distance
    n = max(len(a_profile), len(rows)) if min(len(a_profile), len(rows)) else 0
    out = np.empty(n, dtype=np.float32)
    gaps = np.empty(a_attributes.shape[1], dtype=np.float32)
    a_home = (np.nan, np.nan, np.nan)
    for i in range(n):
        j, k = min(i, len(a_profile) - 1), rows[min(i, len(rows) - 1)]
        a, b, day = a_profile[j], b_profile[k], days[min(i, len(days) - 1)]
        if i == j:  # whoever meets all of the other side has one home
            a_home = unit_vector(float(a[latitude]), float(a[longitude]))
        _, jaccard = _interests(a, b, first_word, n_words)
        age_gap = (day - float(a[birth_day])) / DAYS_PER_YEAR - (day - float(b[birth_day])) / DAYS_PER_YEAR
        apart = distance_km(a_home, unit_vector(float(b[latitude]), float(b[longitude])))
        _gaps(gaps, a_attributes[j], b_attributes[k])
        gap = float(_mean_known(gaps))
        score = by_interests * (0.0 if math.isnan(jaccard) else jaccard)
        score += by_age * (0.5 if math.isnan(age_gap) else 1.0 / (1.0 + abs(age_gap) / half_age_gap))
        score += by_distance * (0.25 if math.isnan(apart) else 1.0 / (1.0 + apart / half_distance))
        score += by_attributes * (0.5 if math.isnan(gap) else 1.0 - min(gap, 1.0))
        out[i] = min(max(score, 0.0), 1.0)
    return out


@compiled
def _known(value: float) -> float:
    """Return the value, 0 where it is NaN."""
    return 0.0 if math.isnan(value) else value


@compiled
def content_rows(
    out: Array, profiles: Array, attributes: Array, days: Array, edges: Array, p: Array,
    n_genders: int, n_words: int, bits_per_word: int,
) -> None:  # fmt: skip
    """Write the content inputs of n people into float32[n, k] zeros; `days` float64 (one or n) since 1970."""
    c = p[0]
    for i in range(len(out)):
        row, person = out[i], profiles[i]
        age = (days[min(i, len(days) - 1)] - float(person[c.birth_day])) / DAYS_PER_YEAR
        if not math.isnan(age):
            scaled = min(max((age - 30.0) / 10.0, -3.0), 7.0)
            row[0], row[1], row[2] = scaled, scaled * scaled / 4.0, 1.0
            place = 3
            for edge in edges:
                place += age >= edge
            row[place] = 1.0
        start = 4 + len(edges)
        row[start + code(person[c.gender])] = 1.0
        start += n_genders
        seeking = code(person[c.seeking])
        for gender in range(n_genders):
            row[start + gender] = seeking >> gender & 1
        start += n_genders
        x, y, z = unit_vector(float(person[c.latitude]), float(person[c.longitude]))
        row[start], row[start + 1], row[start + 2] = _known(x), _known(y), _known(z)
        row[start + 3] = 0.0 if math.isnan(x) else 1.0
        row[start + 4] = math.log1p(max(_known(float(person[c.n_interests])), 0.0)) / 3.0
        row[start + 5] = math.log1p(max(_known(float(person[c.bio_length])), 0.0)) / 6.0
        start += 6
        slots = attributes.shape[1]
        for slot in range(slots):
            value = float(attributes[i, slot])
            if not math.isnan(value):
                row[start + slot] = math.asinh(value) / 3.0
                row[start + slots + slot] = 1.0
        start += 2 * slots
        for word in range(n_words):
            bits = int(person[c.interests_00 + word])
            for bit in range(bits_per_word):
                row[start + word * bits_per_word + bit] = bits >> bit & 1


@compiled
def _at_least_one(value: float) -> float:
    """Return the value, at least 1; NaN stays NaN."""
    return 1.0 if value < 1.0 else value


@compiled
def _person(out: Array, start: int, activity: Array, kept: Array, reciprocity: Array, attributes: Array) -> None:
    """Write what a person brings into every pair: activity without clock readings, reciprocity, attributes."""
    for column in range(len(kept)):
        out[start + column] = activity[kept[column]]
    start += len(kept)
    out[start : start + len(reciprocity)] = reciprocity
    start += len(reciprocity)
    out[start : start + len(attributes)] = attributes


@compiled
def _half(
    out: Array, c: Any, p: Any, a: Array, b: Array, a_age: float, b_age: float, distance: float, shared: float,
    jaccard: float, a_tenure: float, b_tenure: float, a_idle: float, b_idle: float, gap: np.float32,
    forward: np.float32, backward: np.float32, similarity: np.float32, liked: np.float32,
) -> None:  # fmt: skip
    """Write the pair features of one direction, a -> b."""
    out[c.age_requester] = a_age
    out[c.age_candidate] = b_age
    out[c.age_gap] = b_age - a_age
    out[c.abs_age_gap] = abs(b_age - a_age)
    a_low, b_low = float(a[p.age_min]), float(b[p.age_min])
    out[c.candidate_age_position] = (b_age - a_low) / _at_least_one(float(a[p.age_max]) - a_low)
    out[c.requester_age_position] = (a_age - b_low) / _at_least_one(float(b[p.age_max]) - b_low)
    out[c.distance_km] = distance
    out[c.log_distance_km] = math.log1p(distance)
    out[c.distance_to_requester_limit] = distance / _at_least_one(float(a[p.max_distance_km]))
    out[c.distance_to_candidate_limit] = distance / _at_least_one(float(b[p.max_distance_km]))
    out[c.shared_interests] = shared
    out[c.interest_jaccard] = jaccard
    out[c.attribute_distance] = gap
    out[c.requester_tenure_days] = a_tenure
    out[c.candidate_tenure_days] = b_tenure
    out[c.requester_idle_days] = a_idle
    out[c.candidate_idle_days] = b_idle
    out[c.candidate_n_interests] = b[p.n_interests]
    out[c.candidate_bio_length] = b[p.bio_length]
    out[c.score_forward] = forward
    out[c.score_backward] = backward
    out[c.similarity_to_liked] = similarity
    out[c.liked_requester] = liked
    out[c.score_product] = forward * backward
    out[c.score_min] = forward if math.isnan(forward) or forward < backward else backward


@compiled
def ranking_rows(
    out: Array, both: bool,
    a_profile: Array, a_attributes: Array, a_activity: Array, a_reciprocity: Array,
    b_profile: Array, b_attributes: Array, b_activity: Array, b_reciprocity: Array,
    days: Array, context: Array, profile_places: Array, pair_places: Array, kept: Array, last_active: int, n_words: int,
) -> None:  # fmt: skip
    """Write the ranking vectors of n pairs into float32[n or 2n, k]; with `both`, the reversed pairs follow.

    One of a side meets all of the other. `context` holds n records, or one: what the factors know of a pair.
    """
    p, c = profile_places[0], pair_places[0]
    n = len(out) // 2 if both else len(out)
    side = len(kept) + a_reciprocity.shape[1] + a_attributes.shape[1]
    a_home = b_home = (np.nan, np.nan, np.nan)
    for i in range(n):
        j, k = min(i, len(a_profile) - 1), min(i, len(b_profile) - 1)
        at, known = days[min(i, len(days) - 1)], context[min(i, len(context) - 1)]
        a, b = a_profile[j], b_profile[k]
        if i == j:  # whoever meets all of the other side has one home
            a_home = unit_vector(float(a[p.latitude]), float(a[p.longitude]))
        if i == k:
            b_home = unit_vector(float(b[p.latitude]), float(b[p.longitude]))
        a_age, b_age = (at - float(a[p.birth_day])) / DAYS_PER_YEAR, (at - float(b[p.birth_day])) / DAYS_PER_YEAR
        distance = distance_km(a_home, b_home)
        shared, jaccard = _interests(a, b, p.interests_00, n_words)
        a_tenure, b_tenure = at - float(a[p.created_day]), at - float(b[p.created_day])
        a_idle, b_idle = at - float(a_activity[j, last_active]), at - float(b_activity[k, last_active])
        forward, backward = known.score_forward, known.score_backward
        row = out[i]
        gaps = row[c.attribute_gap_00 : c.attribute_gap_00 + a_attributes.shape[1]]
        _gaps(gaps, a_attributes[j], b_attributes[k])
        gap = _mean_known(gaps)
        _person(row, 0, a_activity[j], kept, a_reciprocity[j], a_attributes[j])
        _person(row, side, b_activity[k], kept, b_reciprocity[k], b_attributes[k])
        _half(
            row, c, p, a, b, a_age, b_age, distance, shared, jaccard, a_tenure, b_tenure, a_idle, b_idle, gap,
            forward, backward, known.similarity_to_liked, known.liked_requester,
        )  # fmt: skip
        if both:
            other = out[n + i]
            other[:side] = row[side : 2 * side]
            other[side : 2 * side] = row[:side]
            _half(
                other, c, p, b, a, b_age, a_age, distance, shared, jaccard, b_tenure, a_tenure, b_idle, a_idle, gap,
                backward, forward, known.similarity_to_liked_backward, known.liked_candidate,
            )  # fmt: skip
            other[c.attribute_gap_00 : c.attribute_gap_00 + len(gaps)] = gaps
