"""From the free attributes of an imported person to numeric slots.

Which attribute owns which slot stands in `duet.attribute_slots`; a value that is no finite number is left out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ATTRIBUTES, N_ATTRIBUTES
from feature_repo.transforms.profile import Columns

_MOST = 1e30
_PLAIN = frozenset({float, int, bool, type(None)})


def attribute_vectors(users: Columns, slots: Mapping[str, int]) -> NDArray[np.float32]:
    """Pack the column `attributes` (mappings or JSON objects) of n users into float32[n, 24], NaN where absent.

    `slots` maps an attribute's name to its slot; raises MalformedFeatures for a slot out of bounds.
    """
    for name, slot in slots.items():
        if not 0 <= slot < N_ATTRIBUTES:
            raise MalformedFeatures(f"The attribute {name!r} claims slot {slot}: slots are 0 to {N_ATTRIBUTES - 1}.")
    people = [json.loads(person) if isinstance(person, str) else person for person in users["attributes"]]
    packed = ATTRIBUTES.default_rows(len(people))
    rows = [row for row, person in enumerate(people) if isinstance(person, Mapping)]
    known = [people[row] for row in rows]
    for name, slot in slots.items():
        packed[rows, slot] = _numbers([person.get(name) for person in known])
    return packed


def _numbers(values: list[Any]) -> Sequence[float] | NDArray[np.float64]:
    """Return what `numeric` says of each value, for all of them at once where they are nothing but JSON's numbers."""
    if not _PLAIN.issuperset(map(type, values)):
        return [numeric(value) for value in values]
    try:
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    except OverflowError:  # an integer beyond all floats
        return [numeric(value) for value in values]
    return np.where((numbers > -_MOST) & (numbers < _MOST), numbers, math.nan)


def numeric(value: Any) -> float:
    """Return the number an attribute stands for, NaN when it stands for none."""
    if value is None or not isinstance(value, (float, int, np.number)):  # a bool is an int
        return math.nan
    return float(value) if -_MOST < value < _MOST else math.nan  # before float(): an integer may be beyond all of them
