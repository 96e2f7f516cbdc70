"""The requester's features from Feast's online store, read per request behind a breaker.

The read waits on the event loop like any other, bounded by the caller's time. After failures the store is left alone
for a moment; meanwhile requests do without it at once.
"""

from collections.abc import Awaitable, Callable

from feature_repo.population.people import People
from serving.errors import BreakerOpen, FeaturesUnavailable
from serving.resilience.breaker import Breaker


class OnlineFeatures:
    """The FeatureReader on a `read` of one person that does not block."""

    def __init__(self, read: Callable[[int], Awaitable[People]], breaker: Breaker) -> None:
        self._read = read
        self._breaker = breaker

    async def read(self, user_id: int, timeout_s: float) -> People:
        """Return nobody or one person; raises FeaturesUnavailable."""
        try:
            return await self._breaker.call(lambda: self._read(user_id), timeout_s)
        except BreakerOpen:
            raise FeaturesUnavailable("The online feature store failed a moment ago.") from None
        except Exception as error:
            # Feast, its registry and its Redis client each raise errors of their own: all mean "no features now".
            raise FeaturesUnavailable(
                f"The online feature store does not answer: {type(error).__name__}.",
                late=isinstance(error, TimeoutError),
            ) from error
