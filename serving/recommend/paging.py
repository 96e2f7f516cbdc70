"""The cursor of recommendations: whom a reader was shown on the pages before.

The next page is made of everybody else, so nobody comes twice, and nobody is passed over because others came or went
meanwhile. The cursor holds the ids themselves: any worker can read it, and nothing is kept for it.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequest

Int64 = NDArray[np.int64]
MOST: Final = 1000
"""Most people on the pages of one reader."""
MAX_CURSOR: Final = 4 * (8 * MOST // 3 + 1)
_ID: Final = np.dtype("<i8")
NOBODY: Final[Int64] = np.empty(0, dtype=np.int64)


def shown_before(cursor: str) -> Int64:
    """Return the ids, int64, that a cursor holds; raises InvalidRequest."""
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii"))
        ids = np.frombuffer(raw, dtype=_ID).astype(np.int64)
    except ValueError:
        ids = NOBODY
    if not len(ids) or len(ids) > MOST or ids.min() < 1:
        raise not_a_cursor()
    return ids


def not_a_cursor() -> InvalidRequest:
    """Return the refusal of a cursor that is none."""
    return InvalidRequest(
        "The cursor is none of ours: send `next` of the page before, or none.",
        [{"field": "cursor", "message": "must be `next` of the page before"}],
    )


def cursor_after(before: Int64, shown: Sequence[int], limit: int) -> str | None:
    """Return the cursor of the page after `shown`; None where there is nobody left, or no room for another page."""
    n = len(before) + len(shown)
    if len(shown) < limit or n + limit > MOST:
        return None
    return urlsafe_b64encode(np.concatenate([before, np.array(shown, dtype=_ID)]).astype(_ID).tobytes()).decode()
