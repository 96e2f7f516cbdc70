"""Asks the model registry what stands in a stage, on threads that may be held by one that does not answer."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from registry.contracts import ReleaseIdentity, ReleaseVersions
from registry.errors import IncoherentRelease, RegistryUnavailable
from registry.promotion.release_cache import LocalRelease, ReleaseCache
from registry.store import ModelRegistry
from serving.releases.slot import Slot

T = TypeVar("T")
SETTLE_LOOKS = 5
"""A stage that still changes after so many looks is taken as it is: what waits for ever never serves."""
_ASK_S = 60.0


class RegistryBreaker(Protocol):
    """What calls of the registry go through: a breaker."""

    async def __call__(self, operation: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Await the operation, or refuse to."""
        ...


async def unguarded(operation: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Await an operation for at most `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        return await operation()


class StageView:
    """The stages as the registry shows them; without one, every question raises RegistryUnavailable.

    `seen` holds the last answer about each stage: a release, None for an empty stage, or why it is no release.
    """

    def __init__(
        self, registry: ModelRegistry | None, feature_schema: str, guard: RegistryBreaker, settle_s: float
    ) -> None:
        self._registry = registry
        self._digest = feature_schema
        self._guard = guard
        self._settle_s = settle_s
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="release-asking")
        self.seen: dict[str, ReleaseIdentity | str | None] = {}

    async def settled(self, slot: Slot) -> ReleaseIdentity | None:
        """Return what stands in a slot's stage once it stops changing; raises IncoherentRelease if it is no release.

        A stage must look the same twice, `settle_s` apart, before it replaces anything: a promotion moves three models,
        and fifty promotions are one swap.
        """
        seen = await self._resolve(slot.stage)
        for _ in range(SETTLE_LOOKS):
            stays = isinstance(seen, ReleaseIdentity) and slot.holds(seen)
            if slot.release is None or seen is None or stays:
                break
            await asyncio.sleep(self._settle_s)
            before, seen = seen, await self._resolve(slot.stage)
            if seen == before:
                break
        if isinstance(seen, str):
            raise IncoherentRelease(seen)
        return seen

    async def fetched(self, versions: ReleaseVersions, cache: ReleaseCache) -> LocalRelease:
        """Return the local copy of a release, fetched if need be."""
        return await self.ask(lambda registry: cache.fetch(registry, versions))

    async def ask(self, work: Callable[[ModelRegistry], T]) -> T:
        """Work with the registry on a thread."""
        registry = self._registry
        if registry is None:
            raise RegistryUnavailable("No MLflow server is configured: set `DUET_MLFLOW__URL`.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, registry)

    async def _resolve(self, stage: str) -> ReleaseIdentity | str | None:
        def look(registry: ModelRegistry) -> ReleaseIdentity | str | None:
            if not registry.in_stage(stage):
                return None
            try:
                return registry.identify_stage(stage, self._digest)
            except IncoherentRelease as error:
                return str(error)

        self.seen[stage] = found = await self._guard(lambda: self.ask(look), _ASK_S)
        return found

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
