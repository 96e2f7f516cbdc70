"""What a look at the releases decided to serve, and whether that still counts: what was overtaken writes nothing."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from serving.errors import Overtaken

T = TypeVar("T")


class ReleaseDecision:
    """A decision that holds while `still` says so, asked on the event loop, and nobody has cancelled its look.

    Work in a thread goes on when its look is cancelled, so it asks `go_on` between its steps, and only the event loop,
    after the work, changes what others see. `stopped` is called when the work is given up.
    """

    def __init__(self, still: Callable[[], bool], stopped: Callable[[], None] = lambda: None) -> None:
        self._still = still
        self._stopped = stopped
        self._over = threading.Event()

    def go_on(self) -> None:
        """Raise Overtaken in a thread whose look was cancelled."""
        if self._over.is_set():
            raise Overtaken("Another order came while this release was being tried.")

    def require(self) -> None:
        """Raise Overtaken on the event loop where the decision does not count any more."""
        self.go_on()
        if not self._still():
            raise Overtaken("Another order came while this release was being tried.")

    async def work(self, threads: Executor, steps: Callable[[], T]) -> T:
        """Work in a thread, and return what came out if the decision still counts then."""
        try:
            done = await asyncio.get_running_loop().run_in_executor(threads, steps)
        except asyncio.CancelledError:
            self._over.set()
            self._stopped()
            raise
        self.require()
        return done
