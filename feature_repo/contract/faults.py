"""Which rows of a batch break the contract, and why: the first reason found stands.

Vectorised: a check marks all rows that fail it at once; no row is looked at twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

MALFORMED = "malformed_row"
NUL = "nul_character"
MISSING = "missing_value"
WRONG_TYPE = "wrong_type"
NOT_FINITE = "not_finite"
OUT_OF_RANGE = "out_of_range"
TOO_LONG = "too_long"
BAD_ENUM = "bad_enum"
FUTURE = "future_date"
SELF = "self_interaction"
UNKNOWN = "unknown_person"
DUPLICATE = "duplicate_key"


class Faults:
    """The faults of one batch of `n_rows` rows."""

    def __init__(self, n_rows: int) -> None:
        self._codes: NDArray[np.int16] = np.full(n_rows, -1, dtype=np.int16)
        self._reasons: list[str] = []

    def mark(self, rows: Mask, reason: str, column: str = "") -> None:
        """Give `reason` to the rows of the mask that have none yet."""
        fresh = rows & (self._codes < 0)
        if fresh.any():
            self._reasons.append(f"{reason}: {column}" if column else reason)
            self._codes[fresh] = len(self._reasons) - 1

    @property
    def bad(self) -> Mask:
        """Rows that break the contract."""
        return np.asarray(self._codes >= 0)

    def reasons(self) -> list[str]:
        """Return one reason per bad row, in row order."""
        return [self._reasons[code] for code in self._codes[self.bad]]
