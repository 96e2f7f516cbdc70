"""Holds people whom an app sends against the contract of imports, all of a batch at once."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from feature_repo.contract import faults as why
from feature_repo.contract import people
from feature_repo.contract.faults import Faults
from feature_repo.contract.json_values import unstorable
from serving.profiles.models import Profile

_COLUMNS: Final = ("birth_date", "gender", *people.LISTS, *people.AGES, *people.NUMBERS, "bio", *people.INSTANTS)
_PLACE: Final = {"latitude", "longitude"}
_TYPES: Final = {
    "birth_date": pa.date32(),
    **dict.fromkeys(people.INSTANTS, people.STAMP),
    **dict.fromkeys(people.LISTS, pa.list_(pa.string())),
    **dict.fromkeys(people.NUMBERS, pa.float64()),
}


def checked(profiles: Sequence[Profile], now: datetime) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return what is to be stored of each profile, JSON by column, and the reason of each that breaks the contract.

    Only what a profile names is in its row.
    """
    faults = Faults(len(profiles))
    named = [profile.model_fields_set for profile in profiles]
    given = set().union(*named)
    if given & _PLACE:
        given |= _PLACE
    wanted = [name for name in _COLUMNS if name in given]
    arrays = {name: _fitted(name, profiles, faults, now) for name in wanted}
    people.consistent(arrays, faults)
    for row, profile in enumerate(profiles):
        reason = unstorable(profile.attributes)
        if reason is not None:
            faults.mark(np.arange(len(profiles)) == row, reason, "attributes")
    columns = {name: array.to_pylist() for name, array in arrays.items()}
    rows = [
        {
            **{name: columns[name][row] for name in wanted if name in named[row]},
            **({"visible": profile.visible} if "visible" in named[row] else {}),
            "attributes": profile.attributes,
        }
        for row, profile in enumerate(profiles)
    ]
    return rows, dict(zip(np.flatnonzero(faults.bad).tolist(), faults.reasons(), strict=True))


def _fitted(name: str, profiles: Sequence[Profile], faults: Faults, now: datetime) -> Any:
    values = [getattr(profile, name) for profile in profiles]
    if name in people.AGES:
        # As text, like in a file: an integer may be too large for any type.
        values = [None if value is None else str(value) for value in values]
    array = pa.array(values, _TYPES.get(name, pa.string()))
    if name in people.INSTANTS:
        return people.past(array, faults, name, now)
    if name == "birth_date":
        return people.birth_dates(array, faults, now)
    return people.fitted(name, array, faults)


def repeated(user_ids: Mapping[int, int]) -> dict[int, str]:
    """Return the reason of each row whose person stands in an earlier row already."""
    seen: set[int] = set()
    found = {}
    for row, user_id in user_ids.items():
        if user_id in seen:
            found[row] = f"{why.DUPLICATE}: user_id"
        seen.add(user_id)
    return found
