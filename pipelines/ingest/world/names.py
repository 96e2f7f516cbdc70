"""First names, so that a printed recommendation reads like people.

They are decoration: text in `attributes`, never a feature, drawn from the id and the seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BY_GENDER = {
    1: (
        "Ada", "Alba", "Amira", "Anna", "Clara", "Elena", "Emma", "Eva", "Greta", "Hanna", "Ines", "Ivy", "Julia",
        "Lea", "Lina", "Lucia", "Maja", "Marta", "Mila", "Nora", "Olga", "Paula", "Rosa", "Sara", "Sofia", "Vera",
    ),
    2: (
        "Adam", "Alan", "Amir", "Anton", "Bruno", "Carlos", "Daniel", "David", "Elias", "Emil", "Felix", "Hugo", "Ivan",
        "Jan", "Karim", "Leo", "Luca", "Marco", "Max", "Nils", "Oscar", "Pablo", "Paul", "Samir", "Tom", "Viktor",
    ),
    3: (
        "Alex", "Andrea", "Ariel", "Charlie", "Dani", "Eden", "Finn", "Jamie", "Jo", "Jules", "Kai", "Kim", "Lou",
        "Mika", "Morgan", "Nico", "Noa", "Quinn", "Remy", "Robin", "Sam", "Sascha", "Sky", "Taylor", "Toni", "Yuri",
    ),
}  # fmt: skip


def first_names(user_ids: NDArray[np.int64], gender: NDArray[np.uint8], seed: int) -> Any:
    """Return a stable first name per person, fitting the gender code."""
    each = len(_BY_GENDER[1])
    place = (user_ids * 7919 + seed * 104_729 % 1_000_003) % each
    names = [name for code in (1, 2, 3) for name in _BY_GENDER[code]]
    return pa.array(names).take(pa.array((gender.astype(np.int64) - 1) * each + place))
