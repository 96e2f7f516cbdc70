"""Live progress: each sentence goes to Dagster's event log and to whoever watches this process."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.resources import Platform

Tell = Callable[[str], None]


def telling(log: Tell, platform: "Platform") -> Tell:
    """Return a function that tells how a step gets on, to its log (`context.log.info`) and to who listens."""

    def tell(sentence: str) -> None:
        log(sentence)
        platform.heard(sentence)

    return tell
