"""From the free attributes of an imported person to numeric slots.

Which attribute owns which slot stands in `duet.attribute_slots`; a value that is no finite number is left out.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ATTRIBUTES, N_ATTRIBUTES
from feature_repo.transforms.profile import Columns


def attribute_vectors(users: Columns, slots: Mapping[str, int]) -> NDArray[np.float32]:
    """Pack the column `attributes` (mappings or JSON objects) of n users into float32[n, 24], NaN where absent.

    `slots` maps an attribute's name to its slot; raises MalformedFeatures for a slot out of bounds.
    """
    for name, slot in slots.items():
        if not 0 <= slot < N_ATTRIBUTES:
            raise MalformedFeatures(f"The attribute {name!r} claims slot {slot}: slots are 0 to {N_ATTRIBUTES - 1}.")
    people = list(users["attributes"])
    packed = ATTRIBUTES.default_rows(len(people))
    for row, person in enumerate(people):
        values = json.loads(person) if isinstance(person, str) else person
        if not isinstance(values, Mapping):
            continue
        for name, slot in slots.items():
            packed[row, slot] = numeric(values.get(name))
    return packed


def numeric(value: Any) -> float:
    """Return the number an attribute stands for, NaN when it stands for none."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float, np.number)):
        number = float(value)
        return number if math.isfinite(number) and abs(number) < 1e30 else math.nan
    return math.nan
