"""A number per profile that changes when anything in it does: how an index notices that somebody is not as they were.

Computed from the packed rows, which training and serving hold bit for bit alike. It tells changes apart from no change;
it is no secret and no identity.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_repo.population.people import People
from infra.compiled import compiled

_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)
_ONE: Final = np.uint64(1)
_SIGN: Final = np.uint32(0x7FFFFFFF)
_INFINITY: Final = np.uint32(0x7F800000)
_NAN: Final = np.uint32(0x7FC00000)


def profile_fingerprints(people: People) -> NDArray[np.uint64]:
    """Return uint64[n], never 0, of the profile and the attributes of each person; activity does not count."""
    profile, attributes = (np.ascontiguousarray(rows).view(np.uint32) for rows in (people.profile, people.attributes))
    return _hashed(profile, attributes)


@compiled
def _mixed(state: Any, bits: Any) -> Any:
    magnitude = bits & _SIGN
    if magnitude > _INFINITY:  # every NaN is the same, whoever computed it, and so is every zero
        bits = _NAN
    elif magnitude == 0:
        bits = magnitude
    state = (state ^ np.uint64(bits)) * _FACTOR
    return state ^ (state >> _HALF)


@compiled
def _hashed(profile: Any, attributes: Any) -> NDArray[np.uint64]:
    out = np.empty(len(profile), dtype=np.uint64)
    for i in range(len(profile)):
        state = _FACTOR
        for j in range(profile.shape[1]):
            state = _mixed(state, profile[i, j])
        for j in range(attributes.shape[1]):
            state = _mixed(state, attributes[i, j])
        out[i] = state | _ONE
    return out
