"""Reads a long list of whole numbers straight out of a body: a Python number for each would cost more than an answer.

Only what is beyond doubt such a list is read here. Anything else is left in the body for the parser, whose word counts.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infra.compiled import compiled, fixed

Int64 = NDArray[np.int64]
LONG: Final = 512
"""Bytes from which on it is worth a look."""
_DIGITS: Final = 18
"""Digits that an int64 always has room for; ids of 19 are left to the parser."""


def without_list(body: bytes, field: str, most: int) -> tuple[bytes, Int64] | None:
    """Return a body in which the list of `field` is empty, and what the list held, int64.

    None where there is none of 1 to `most` ids. The caller must see to it that the field is where a list belongs.
    """
    if len(body) < LONG or b"\\" in body:  # without escapes, a quotation mark begins or ends a text
        return None
    key = f'"{field}"'.encode()
    place = body.find(key)
    start = place + len(key)
    if place < 0 or body.find(key, start) >= 0:
        return None
    found = np.empty(most, dtype=np.int64)
    n, end = _read(fixed(np.frombuffer(body, dtype=np.uint8)), start, found)
    return None if n == 0 else (b"%b:[]%b" % (body[:start], body[end:]), found[:n])


@compiled
def _past_space(text: NDArray[Any], at: int) -> int:
    while at < len(text) and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@compiled
def _read(text: NDArray[Any], at: int, found: Int64) -> tuple[int, int]:
    """Write the numbers of `: [1, 2]` to `found`; return how many, 0 for anything else, and where the list ends."""
    at = _past_space(text, at)
    if at >= len(text) or text[at] != 58:  # :
        return 0, at
    at = _past_space(text, at + 1)
    if at >= len(text) or text[at] != 91:  # [
        return 0, at
    n = 0
    while n < len(found):
        at = _past_space(text, at + 1)
        first, number = at, 0
        while at < len(text) and 48 <= text[at] <= 57 and at - first < _DIGITS:
            number = number * 10 + int(text[at]) - 48
            at += 1
        if at == first or text[first] == 48:  # no digit, or a zero in front
            return 0, at
        found[n] = number
        n += 1
        at = _past_space(text, at)
        if at >= len(text):
            return 0, at
        if text[at] == 93:  # ]
            return n, at + 1
        if text[at] != 44:  # ,
            return 0, at
    return 0, at
