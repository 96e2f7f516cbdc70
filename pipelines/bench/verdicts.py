"""Which answers are wrong, and which only say that the service had more to do than it could.

A load that seeks the limit finds it: 503 and 429 with `Retry-After`, 504, and answers of a lower level are how the
service is meant to behave there. Anything else, and any of these without such a load, is wrong.
"""

from collections.abc import Mapping
from typing import Final

_OVERLOADED: Final = ("status 503", "status 429", "status 504", "level ")


def split(problems: Mapping[str, int], *, seeks_the_limit: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Return the problems that are wrong, and those that an overload explains."""
    explained = {name: n for name, n in problems.items() if seeks_the_limit and name.startswith(_OVERLOADED)}
    return {name: n for name, n in problems.items() if name not in explained}, explained
