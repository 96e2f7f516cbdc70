"""The compiled loops behind ages, distances, eligibility, content and the ranking vector.

Every row is computed on its own, in float64 unless said otherwise, so training and serving give equal bits. Profiles
come as packed rows, with the places of their columns in `p`, in the order of `columns`: numbers, because a
compiled loop would not notice that a layout has changed.
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
def _near(latitude: float, longitude: float, limit: float, own: Array) -> bool:
    """Say whether a home is within its own limit and those that `own` holds; see `accepted`."""
    nearest = own[10]
    nearest = limit if limit < nearest else nearest
    nearest = own[9] if own[9] < nearest else nearest
    if nearest == np.inf:
        return True
    # Most homes are so near or so far that degrees alone decide, with room for any rounding. None of this holds of NaN.
    north, east = abs(latitude - own[11]) * KM_PER_DEGREE, abs(longitude - own[12]) * KM_PER_DEGREE
    if north > nearest * 1.001 + 0.1:
        return False
    if north + east < nearest * 0.999 - 0.1:
        return True
    distance = distance_km((own[6], own[7], own[8]), unit_vector(latitude, longitude))
    # Comparisons with NaN are False: an unknown home passes, and so does whoever sets no limit.
    return not (distance > limit or distance > own[9] or (own[10] != np.inf and not distance <= own[10]))


@compiled
def _fits(theirs: Array, p: Array, own: Array, interests: Array) -> bool:
    """Say whether a profile and the one that `own` describes accept each other."""
    gender, seeking, wanted = code(own[0]), code(own[1]), code(theirs[p[2]])
    if (seeking and not seeking >> code(theirs[p[1]]) & 1) or (wanted and not wanted >> gender & 1):
        return False
    born = theirs[p[0]]
    if (own[2] != np.inf and not born <= own[2]) or (own[3] != -np.inf and not born > own[3]):
        return False
    if theirs[p[3]] > own[4] or theirs[p[4]] < own[5]:
        return False
    if not _near(float(theirs[p[5]]), float(theirs[p[6]]), theirs[p[7]], own):
        return False
    shared = len(interests) == 0
    for word in range(len(interests)):
        shared |= (int(theirs[p[11] + word]) & int(interests[word])) != 0
    return shared


@compiled
def accepted(
    user_ids: Array, profiles: Array, late_ids: Array, late_profiles: Array, positions: Array, p: Array,
    own_id: int, own: Array, interests: Array, excluded: Array,
) -> Array:  # fmt: skip
    """Return bool[m]: may those at `positions` be shown to one person; those beyond the last profile are late ones.

    `own` float64: gender, seeking, latest birth day wanted (infinity: any; else unknown ones do not fit), earliest one
    not wanted (-infinity: any), own age for a lower and for an upper bound, x, y, z of the home, own distance limit,
    one that an unknown home does not meet (infinity: none), and the home in degrees. Of `interests` float32 words,
    unless they are empty, one bit is wanted; `excluded` int64 ascend. A position of -1 is nobody.
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
            out[i] = ids[j] != own_id and _fits(block[j], p, own, interests) and not _stands_in(excluded, ids[j])
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

    `days` float64 (one or n) since 1970; `weights` float64: interests, age, distance, attributes, then the age gap in
    years and the distance in km at which closeness is one half.
    """
    n = max(len(a_profile), len(rows)) if min(len(a_profile), len(rows)) else 0
    out = np.empty(n, dtype=np.float32)
    gaps = np.empty(a_attributes.shape[1], dtype=np.float32)
    a_home = (np.nan, np.nan, np.nan)
    for i in range(n):
        j, k = min(i, len(a_profile) - 1), rows[min(i, len(rows) - 1)]
        a, b, day = a_profile[j], b_profile[k], days[min(i, len(days) - 1)]
        if i == j:  # whoever meets all of the other side has one home
            a_home = unit_vector(float(a[p[5]]), float(a[p[6]]))
        _, jaccard = _interests(a, b, p[11], n_words)
        age_gap = (day - float(a[p[0]])) / DAYS_PER_YEAR - (day - float(b[p[0]])) / DAYS_PER_YEAR
        apart = distance_km(a_home, unit_vector(float(b[p[5]]), float(b[p[6]])))
        _gaps(gaps, a_attributes[j], b_attributes[k])
        gap = float(_mean_known(gaps))
        score = weights[0] * (0.0 if math.isnan(jaccard) else jaccard)
        score += weights[1] * (0.5 if math.isnan(age_gap) else 1.0 / (1.0 + abs(age_gap) / weights[4]))
        score += weights[2] * (0.25 if math.isnan(apart) else 1.0 / (1.0 + apart / weights[5]))
        score += weights[3] * (0.5 if math.isnan(gap) else 1.0 - min(gap, 1.0))
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
    for i in range(len(out)):
        row, person = out[i], profiles[i]
        age = (days[min(i, len(days) - 1)] - float(person[p[0]])) / DAYS_PER_YEAR
        if not math.isnan(age):
            scaled = min(max((age - 30.0) / 10.0, -3.0), 7.0)
            row[0], row[1], row[2] = scaled, scaled * scaled / 4.0, 1.0
            place = 3
            for edge in edges:
                place += age >= edge
            row[place] = 1.0
        start = 4 + len(edges)
        row[start + code(person[p[1]])] = 1.0
        start += n_genders
        seeking = code(person[p[2]])
        for gender in range(n_genders):
            row[start + gender] = seeking >> gender & 1
        start += n_genders
        x, y, z = unit_vector(float(person[p[5]]), float(person[p[6]]))
        row[start], row[start + 1], row[start + 2] = _known(x), _known(y), _known(z)
        row[start + 3] = 0.0 if math.isnan(x) else 1.0
        row[start + 4] = math.log1p(max(_known(float(person[p[8]])), 0.0)) / 3.0
        row[start + 5] = math.log1p(max(_known(float(person[p[9]])), 0.0)) / 6.0
        start += 6
        slots = attributes.shape[1]
        for slot in range(slots):
            value = float(attributes[i, slot])
            if not math.isnan(value):
                row[start + slot] = math.asinh(value) / 3.0
                row[start + slots + slot] = 1.0
        start += 2 * slots
        for word in range(n_words):
            bits = int(person[p[11] + word])
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
    out: Array, c: Array, p: Array, a: Array, b: Array, a_age: float, b_age: float, distance: float, shared: float,
    jaccard: float, a_tenure: float, b_tenure: float, a_idle: float, b_idle: float, gap: np.float32,
    forward: np.float32, backward: np.float32, similarity: np.float32, liked: np.float32,
) -> None:  # fmt: skip
    """Write the pair features of one direction, a -> b."""
    out[c[0]] = a_age
    out[c[1]] = b_age
    out[c[2]] = b_age - a_age
    out[c[3]] = abs(b_age - a_age)
    a_low, b_low = float(a[p[3]]), float(b[p[3]])
    out[c[4]] = (b_age - a_low) / _at_least_one(float(a[p[4]]) - a_low)
    out[c[5]] = (a_age - b_low) / _at_least_one(float(b[p[4]]) - b_low)
    out[c[6]] = distance
    out[c[7]] = math.log1p(distance)
    out[c[8]] = distance / _at_least_one(float(a[p[7]]))
    out[c[9]] = distance / _at_least_one(float(b[p[7]]))
    out[c[10]] = shared
    out[c[11]] = jaccard
    out[c[12]] = gap
    out[c[13]] = a_tenure
    out[c[14]] = b_tenure
    out[c[15]] = a_idle
    out[c[16]] = b_idle
    out[c[17]] = b[p[8]]
    out[c[18]] = b[p[9]]
    out[c[19]] = forward
    out[c[20]] = backward
    out[c[21]] = similarity
    out[c[22]] = liked
    out[c[23]] = forward * backward
    out[c[24]] = forward if math.isnan(forward) or forward < backward else backward


@compiled
def ranking_rows(
    out: Array, both: bool,
    a_profile: Array, a_attributes: Array, a_activity: Array, a_reciprocity: Array,
    b_profile: Array, b_attributes: Array, b_activity: Array, b_reciprocity: Array,
    days: Array, context: Array, p: Array, c: Array, kept: Array, last_active: int, n_words: int,
) -> None:  # fmt: skip
    """Write the ranking vectors of n pairs into float32[n or 2n, k]; with `both`, the reversed pairs follow.

    One of a side meets all of the other. `context` float32[6, n or 1]: score forward and backward, similarity to liked
    and liked requester, then the last two of the other direction.
    """
    n = len(out) // 2 if both else len(out)
    side = len(kept) + a_reciprocity.shape[1] + a_attributes.shape[1]
    a_home = b_home = (np.nan, np.nan, np.nan)
    for i in range(n):
        j, k = min(i, len(a_profile) - 1), min(i, len(b_profile) - 1)
        at, m = days[min(i, len(days) - 1)], min(i, context.shape[1] - 1)
        a, b = a_profile[j], b_profile[k]
        if i == j:  # whoever meets all of the other side has one home
            a_home = unit_vector(float(a[p[5]]), float(a[p[6]]))
        if i == k:
            b_home = unit_vector(float(b[p[5]]), float(b[p[6]]))
        a_age, b_age = (at - float(a[p[0]])) / DAYS_PER_YEAR, (at - float(b[p[0]])) / DAYS_PER_YEAR
        distance = distance_km(a_home, b_home)
        shared, jaccard = _interests(a, b, p[11], n_words)
        a_tenure, b_tenure = at - float(a[p[10]]), at - float(b[p[10]])
        a_idle, b_idle = at - float(a_activity[j, last_active]), at - float(b_activity[k, last_active])
        forward, backward = context[0, m], context[1, m]
        row = out[i]
        gaps = row[c[25] : c[25] + a_attributes.shape[1]]
        _gaps(gaps, a_attributes[j], b_attributes[k])
        gap = _mean_known(gaps)
        _person(row, 0, a_activity[j], kept, a_reciprocity[j], a_attributes[j])
        _person(row, side, b_activity[k], kept, b_reciprocity[k], b_attributes[k])
        _half(
            row, c, p, a, b, a_age, b_age, distance, shared, jaccard, a_tenure, b_tenure, a_idle, b_idle, gap,
            forward, backward, context[2, m], context[3, m],
        )  # fmt: skip
        if both:
            other = out[n + i]
            other[:side] = row[side : 2 * side]
            other[side : 2 * side] = row[:side]
            _half(
                other, c, p, b, a, b_age, a_age, distance, shared, jaccard, b_tenure, a_tenure, b_idle, a_idle, gap,
                backward, forward, context[4, m], context[5, m],
            )  # fmt: skip
            other[c[25] : c[25] + len(gaps)] = gaps
