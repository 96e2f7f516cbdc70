"""Hard filters: two-sided preferences, exclusions, and what this request asks for. They run at every level.

A request filter needs the fact it asks for: somebody of unknown age is not "between 25 and 40".
"""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

import numpy as np

from feature_repo.layout import INTEREST_COLUMNS, PROFILE
from feature_repo.population.people import People
from feature_repo.transforms import AttributeWish, Terms, Wishes, profile_vectors
from serving.api.recommendation_models import AttributeFilter, Filters
from serving.errors import InvalidRequest
from serving.recommend.pool import Bools, Float32, KnownRequester, Pool

_INTERESTS = slice(PROFILE.index(INTEREST_COLUMNS[0]), PROFILE.index(INTEREST_COLUMNS[-1]) + 1)
_NO_WISHES = Wishes()
_NO_SLOTS: Mapping[str, int] = {}


def terms_of(
    requester: KnownRequester, filters: Filters | None, at: float, slots: Mapping[str, int] = _NO_SLOTS
) -> Terms:
    """Return on which terms people may be shown to `requester` at unix seconds `at`; `slots` are those of attributes.

    An attribute without a slot is left to the last check.
    """
    wishes = _NO_WISHES if filters is None else _wishes(filters, slots)
    return Terms.of(requester.person, at, wishes, requester.excluded)


def allowed(requester: KnownRequester, people: People, filters: Filters | None, at: float) -> Bools:
    """Return bool[n]: may each of `people` be shown to `requester` at unix seconds `at`, whatever their attributes."""
    return terms_of(requester, filters, at).met(people, np.arange(len(people)))


def filter_pool(requester: KnownRequester, pool: Pool, filters: Filters | None, at: float) -> Pool:
    """Return the candidates of `pool` that may be shown, whatever their attributes."""
    return pool.keep(allowed(requester, pool.people, filters, at))


def refuse_unknown(filters: Filters | None, slots: Mapping[str, int]) -> None:
    """Raise InvalidRequest where a filter names an attribute that is none of `slots`."""
    if filters is None or filters.attributes is None:
        return
    for name in filters.attributes:
        if name not in slots:
            near = get_close_matches(name, slots, n=1)
            if near:
                what = f"did you mean `{near[0]}`?"
            else:
                what = f"there are `{'`, `'.join(sorted(slots))}`." if slots else "nobody has any."
            raise InvalidRequest(
                f"No attribute with numbers is called `{name}`: {what}",
                [{"field": f"filters.attributes.{name}", "message": f"is no attribute with numbers: {what}"}],
            )


def _wishes(filters: Filters, slots: Mapping[str, int]) -> Wishes:
    return Wishes(
        age_min=math.nan if filters.age_min is None else filters.age_min,
        age_max=math.nan if filters.age_max is None else filters.age_max,
        max_distance_km=math.inf if filters.max_distance_km is None else filters.max_distance_km,
        # 240 buckets let a few others through; the safety check compares the words themselves.
        interests=_interests(tuple(filters.interests_any or ())),
        attributes=tuple(
            _attribute(slots[name], wish) for name, wish in (filters.attributes or {}).items() if name in slots
        ),
    )


def _attribute(slot: int, wish: AttributeFilter) -> AttributeWish:
    return AttributeWish(
        slot,
        low=-math.inf if wish.gte is None else wish.gte,
        high=math.inf if wish.lte is None else wish.lte,
        among=None if wish.among is None else tuple(wish.among),
    )


@lru_cache(maxsize=512)
def _interests(asked: tuple[str, ...]) -> Float32:
    """Return the words of a profile that has these interests; nothing where none is asked for."""
    if not asked:
        return np.empty(0, dtype=np.float32)
    return np.ascontiguousarray(profile_vectors({"user_id": [0], "interests": [list(asked)]})[0, _INTERESTS])
