"""Who gets which release: a share of a salted, stable hash of the person, so that every worker and every day agree.

Another salt draws anew and independently. A larger share only ever adds people to the challenger: nobody is moved
back and forth while a share is raised.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from registry.experiments.table import ExperimentState

_BITS: Final = 64


class Variant(StrEnum):
    """The arm of the experiment that an answer is from."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"


@dataclass(frozen=True)
class Experiment:
    """One row of the table of experiments; `challenger_share` in 0..1 counts while it is running."""

    name: str
    salt: str
    challenger_share: float
    state: ExperimentState

    def variant(self, user_id: int) -> Variant:
        """Return the arm of a person."""
        if self.state is ExperimentState.RUNNING and share_of(self.salt, user_id) < self.challenger_share:
            return Variant.CHALLENGER
        return Variant.CHAMPION


@dataclass(frozen=True)
class Assignment:
    """The arm that a request is to be answered by, and the experiment that says so, if one is active."""

    variant: Variant
    experiment: str | None = None


def share_of(salt: str, user_id: int) -> float:
    """Return where a person stands in [0, 1) under a salt; the same in every process, for ever."""
    digest = blake2b(f"{salt}\x00{user_id}".encode(), digest_size=_BITS // 8).digest()
    # Of 64 bits the upper 53 fit a float exactly; rounding the rest could reach 1.0.
    return (int.from_bytes(digest, "big") >> (_BITS - 53)) / 2**53
