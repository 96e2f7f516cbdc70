"""A server that somebody else starts: it is watched, and one that `infra.endpoints` runs is started again.

Starting a database can take minutes, so it happens in a thread beside the supervisor, which goes on watching the rest.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from infra.supervisor.backoff import Backoff
from infra.supervisor.errors import in_words
from infra.supervisor.spec import External
from infra.supervisor.state import ServicePhase


@dataclass(frozen=True)
class Change:
    """What became of it."""

    phase: ServicePhase
    detail: str


class WatchedServer:
    """One such server over its whole life.

    Attributes:
        refusals: how many probes in a row found it not healthy.
        generation: how many times it was started again.
    """

    def __init__(self, spec: External) -> None:
        self.spec = spec
        self.refusals = 0
        self.generation = 0
        self.backoff = Backoff()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"revive-{spec.name}")
        self._revival: Future[None] | None = None
        self._due_at: float | None = None
        self._asked = False

    def failed(self) -> None:
        """Have it started again, at once the first time and later after a wait that grows."""
        if self.spec.revive is not None and not self.is_being_revived and self._due_at is None:
            wait_s = self.backoff.failed(time.monotonic())
            self._due_at = time.monotonic() + (wait_s if self.backoff.attempts > 1 else 0.0)

    def restart(self) -> None:
        """Have it ended and started now, because somebody asked for it."""
        self._asked, self._due_at = True, time.monotonic()

    @property
    def is_being_revived(self) -> bool:
        """Tell whether it is being started at this moment."""
        return self._revival is not None

    def look(self) -> Change | None:
        """Start it if that is due; return what became of a start that ended."""
        if self._revival is not None:
            return self._ended(self._revival) if self._revival.done() else None
        if self._due_at is not None and time.monotonic() >= self._due_at:
            revive, stop, self._due_at = self.spec.revive, self.spec.stop if self._asked else None, None
            if revive is not None:
                self._revival = self._pool.submit(_anew, revive, stop)
        return None

    def close(self) -> None:
        """Wait for a start under way: what it started must be stopped with the rest."""
        self._due_at = None
        self._pool.shutdown(wait=True)

    def _ended(self, revival: Future[None]) -> Change:
        self._revival = None
        self.generation += 1
        self.refusals = 0
        was_asked, self._asked = self._asked, False
        failure = revival.exception()
        if failure is None:
            how = "was started anew, as somebody asked" if was_asked else "did not answer and was started again"
            return Change(ServicePhase.STARTING, f"it {how}")
        if not isinstance(failure, Exception):
            raise failure
        # Whatever it was: the rest of the platform is watched from the same loop.
        why, wait_s = in_words(failure).rstrip("."), self.backoff.failed(time.monotonic())
        self._due_at = time.monotonic() + wait_s
        return Change(ServicePhase.DIED, f"cannot be started again: {why}. The next try is in {wait_s:.0f} s.")


def _anew(revive: Callable[[], None], stop: Callable[[], None] | None) -> None:
    if stop is not None:
        stop()
    revive()
