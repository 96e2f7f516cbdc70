"""The names of ranking features as a person reads them.

An imported attribute has a slot in the vector; a person knows it by the name of its column.
"""

import re
from collections.abc import Mapping

_SLOT = re.compile(r"^(requester_attribute|candidate_attribute|attribute_gap)_(\d+)$")


def readable(feature: str, attributes: Mapping[int, str]) -> str:
    """Return the name of a ranking feature for a person; `attributes` says which attribute owns each slot."""
    slot = _SLOT.match(feature)
    return f"{slot[1]}_{attributes[int(slot[2])]}" if slot and int(slot[2]) in attributes else feature


def is_free_slot(feature: str, attributes: Mapping[int, str]) -> bool:
    """Tell whether a feature belongs to a slot that no attribute owns."""
    slot = _SLOT.match(feature)
    return slot is not None and int(slot[2]) not in attributes
