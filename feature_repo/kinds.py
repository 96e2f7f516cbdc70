"""What one person can do about another, and which kinds of it decide, like, separate and undo.

Statements name kinds as literals, made here, so that the partial indexes on kinds can be used.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from psycopg import sql


class Kind(StrEnum):
    """What one person did about another."""

    LIKE = "like"
    PASS = "pass"  # noqa: S105 no password: they passed on somebody
    SUPERLIKE = "superlike"
    MESSAGE = "message"
    BLOCK = "block"
    REPORT = "report"
    UNLIKE = "unlike"
    UNBLOCK = "unblock"


KINDS: Final = tuple(kind.value for kind in Kind)
"""All kinds; the place of a kind in here is its code in arrays."""
LIKES: Final = (Kind.LIKE, Kind.SUPERLIKE)
DECISIONS: Final = (Kind.LIKE, Kind.SUPERLIKE, Kind.PASS)
SEPARATIONS: Final = (Kind.BLOCK, Kind.REPORT)
"""After one of these, in either direction, two people do not see each other: a report is for good, a block until who
blocked takes it back."""
UNDOS: Final = (Kind.UNLIKE, Kind.UNBLOCK)
"""What takes back something that the same person did about the same person; see `feature_repo.transforms.pairs`."""
NO_LONGER_LIKES: Final = (Kind.PASS, Kind.UNLIKE)
"""Either ends the like of the same person for the same person."""


def code(kind: Kind) -> int:
    """Return the code of a kind in arrays."""
    return KINDS.index(kind.value)


def codes(kinds: Sequence[Kind]) -> tuple[int, ...]:
    """Return the codes of kinds in arrays."""
    return tuple(code(kind) for kind in kinds)


def listed(kinds: Sequence[Kind]) -> sql.Composed:
    """Return kinds as SQL literals with commas between: what stands in `kind in (...)`."""
    return sql.SQL(", ").join(sql.Literal(kind.value) for kind in kinds)
