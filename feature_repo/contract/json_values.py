"""Which JSON values Postgres can keep: what an attribute of a person may be."""

import math
from typing import Any

from feature_repo.contract import faults as why


def unstorable(value: Any) -> str | None:
    """Return why JSON in Postgres cannot hold a plain value of any depth, None if it can."""
    if isinstance(value, float):
        return None if math.isfinite(value) else why.NOT_FINITE
    if isinstance(value, str):
        return why.NUL if "\x00" in value else None
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((reason for reason in map(unstorable, parts) if reason is not None), None)
