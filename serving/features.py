"""The requester's features from Feast's online store, read per request off the event loop.

Feast's client blocks, so it has threads of its own: a store that does not answer can occupy those and nothing else.
After a failure it is left alone for a moment, after more of them for longer; meanwhile requests do without it at once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from feature_repo.people import People
from infra.clock import Clock
from serving.errors import FeaturesUnavailable

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
_THREADS = 4


class OnlineFeatures:
    """The FeatureReader on a blocking `read` of one person."""

    def __init__(self, read: Callable[[int], People], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="features")
        self._paused_until_s = float("-inf")
        self._pause_s = FIRST_PAUSE_S

    async def read(self, user_id: int, timeout_s: float) -> People:
        """Return nobody or one person; raises FeaturesUnavailable."""
        if self._clock.monotonic() < self._paused_until_s:
            raise FeaturesUnavailable("The online feature store failed a moment ago.")
        try:
            async with asyncio.timeout(timeout_s):
                people = await asyncio.get_running_loop().run_in_executor(self._threads, self._read, user_id)
        except Exception as error:
            # Feast, its registry and its Redis client each raise errors of their own: all mean "no features now".
            self._paused_until_s = self._clock.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            raise FeaturesUnavailable(f"The online feature store does not answer: {type(error).__name__}.") from error
        self._pause_s = FIRST_PAUSE_S
        return people

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
