"""Hard filters: two-sided preferences, exclusions, and what this request asks for. They run at every level.

A request filter needs the fact it asks for: somebody of unknown age is not "between 25 and 40".
"""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_repo.layout import INTEREST_COLUMNS, PROFILE
from feature_repo.population.people import People
from feature_repo.population.population import Population
from feature_repo.population.traits import trait_code
from feature_repo.transforms import NumberWish, Terms, Wishes, profile_vectors
from serving.api.recommendation_models import AttributeFilter, Filters
from serving.errors import InvalidRequest
from serving.recommend.pool import Bools, Float32, KnownRequester, Pool

_INTERESTS = slice(PROFILE.index(INTEREST_COLUMNS[0]), PROFILE.index(INTEREST_COLUMNS[-1]) + 1)
_NO_WISHES = Wishes()
_NO_SLOTS: Mapping[str, int] = {}
_NAMED = 100
"""Attributes that a refusal names at most."""
_COMPARED = 64
"""Characters of a name that are compared with those of attributes."""


def terms_of(
    requester: KnownRequester, filters: Filters | None, at: float, slots: Mapping[str, int] = _NO_SLOTS
) -> Terms:
    """Return on which terms people may be shown to `requester` at unix seconds `at`; `slots` are those of attributes.

    Without a slot, an attribute is known to a population alone.
    """
    wishes = _NO_WISHES if filters is None else _wishes(filters, slots)
    return Terms.of(requester.person, at, wishes, requester.excluded)


def allowed(requester: KnownRequester, people: People, filters: Filters | None, at: float) -> Bools:
    """Return bool[n]: may each of `people` be shown to `requester` at unix seconds `at`, whatever their attributes."""
    return terms_of(requester, filters, at).met(people, np.arange(len(people)))


def filter_pool(requester: KnownRequester, pool: Pool, filters: Filters | None, at: float) -> Pool:
    """Return the candidates of `pool` that may be shown, whatever their attributes."""
    return pool.keep(allowed(requester, pool.people, filters, at))


def refuse_unfit(filters: Filters | None, slots: Mapping[str, int], population: Population | None) -> None:
    """Raise InvalidRequest where a filter names no attribute of anybody, or asks it for what it does not hold.

    Nothing is refused before people are loaded.
    """
    if filters is None or filters.attributes is None or population is None:
        return
    for name, wish in filters.attributes.items():
        if wish.flag is not None:
            fits = name in population.flags
        elif wish.texts:
            fits = name in population.texts
        else:
            fits = name in slots or name in population.numbers
        if not fits:
            what = _advice(name, slots, population)
            raise InvalidRequest(
                f"The filter by the attribute `{name}` cannot be met: {what}",
                [{"field": f"filters.attributes.{name}", "message": what}],
            )


def _advice(name: str, slots: Mapping[str, int], population: Population) -> str:
    known = {
        "numbers: ask with `gte`, `lte` or `in`": {*slots, *population.numbers},
        "text: ask with `in` and the texts": population.texts,
        "true or false: ask with `is`": population.flags,
    }
    held = [what for what, names in known.items() if name in names]
    if held:
        return f"it holds {', or '.join(held)}."
    every = sorted({*slots, *population.numbers, *population.texts, *population.flags})
    near = get_close_matches(name[:_COMPARED], every[:_NAMED], n=1)
    if near:
        return f"nobody has it; did you mean `{near[0]}`?"
    return f"nobody has it; there are `{'`, `'.join(every[:_NAMED])}`." if every else "nobody has any."


def _wishes(filters: Filters, slots: Mapping[str, int]) -> Wishes:
    wanted = filters.attributes or {}
    numbers = {name: _number(wish) for name, wish in wanted.items() if not wish.traits}
    return Wishes(
        age_min=math.nan if filters.age_min is None else filters.age_min,
        age_max=math.nan if filters.age_max is None else filters.age_max,
        max_distance_km=math.inf if filters.max_distance_km is None else filters.max_distance_km,
        # 240 buckets let a few others through; the safety check compares the words themselves.
        interests=_interests(tuple(filters.interests_any or ())),
        attributes=tuple((slots[name], wish) for name, wish in numbers.items() if name in slots),
        numbers=tuple((name, wish) for name, wish in numbers.items() if name not in slots),
        traits=tuple(_codes(name, wish.traits) for name, wish in wanted.items() if wish.traits),
    )


def _number(wish: AttributeFilter) -> NumberWish:
    return NumberWish(
        low=-math.inf if wish.gte is None else float(wish.gte),
        high=math.inf if wish.lte is None else float(wish.lte),
        among=None if wish.numbers is None else tuple(map(float, wish.numbers)),
    )


def _codes(name: str, values: tuple[str | bool, ...]) -> NDArray[np.int64]:
    return np.unique(np.array([trait_code(name, value) for value in values], dtype=np.int64))


@lru_cache(maxsize=512)
def _interests(asked: tuple[str, ...]) -> Float32:
    """Return the words of a profile that has these interests; nothing where none is asked for."""
    if not asked:
        return np.empty(0, dtype=np.float32)
    return np.ascontiguousarray(profile_vectors({"user_id": [0], "interests": [list(asked)]})[0, _INTERESTS])
