"""Keeps the people in memory fresh, in the background: one reference, replaced whole.

At the start the last generation on disk is mapped and brought up to date. From then on changes are applied in place
every few seconds, and a process of its own writes the next generation when the online store was filled again, when too
much has changed since the last one, or when it is old. All workers of a machine map the same files. A failure keeps
what is there and says why in /health; it never reaches a request.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from feature_repo.population.population import Population
from infra.clock import Clock
from infra.metrics import ServingMetrics
from infra.settings import ServingSettings
from serving.errors import FeaturesLost, FeaturesUnavailable, SnapshotError, UnusableGeneration
from serving.snapshots.generations import Generation, Generations
from serving.snapshots.population_source import PopulationSnapshot

LARGE_TAIL: Final = 2_000
"""People in the tail are looked at by every request, wherever they live: beyond so many they are sorted in."""
MANY_LATE_LIKES: Final = 50_000
THOROUGH_EVERY_S: Final = 60.0
FILLED_EVERY_S: Final = 15.0
SAMPLE_EVERY_S: Final = 60.0
SAMPLE_PEOPLE: Final = 400
"""So many people are looked up online each time: of a loss of 1 % that finds one in 98 of 100 looks."""
BUILD_PAUSE_S: Final = 30.0
REPAIR_AFTER_S: Final = 60.0
"""Time until what was written without the online store is written again."""
FIRST_RETRY_S: Final = 1.0
_POLL_S: Final = 0.1
_log = structlog.get_logger(__name__)
T = TypeVar("T")
Int64 = NDArray[np.int64]


class Builds(Protocol):
    """Writes generations, in another process."""

    def start(self) -> bool:
        """Begin to write the next generation; False when somebody else does so already."""
        ...

    def running(self) -> bool:
        """Say whether it still works; raises BuildFailed once if it failed."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Refresh(Protocol):
    """Brings a snapshot up to date in place; a thorough look goes back further."""

    def __call__(self, snapshot: PopulationSnapshot, *, thorough: bool) -> PopulationSnapshot:
        """Return the snapshot as of now; raises TooManyChanges, and whatever its libraries raise."""
        ...


class SnapshotKeeper:
    """Holds the current snapshot; `refresh`, `filled_at` and `require` block and run in a thread.

    `require` raises FeaturesLost where some of a few people lack their features online.
    """

    def __init__(
        self,
        *,
        generations: Generations,
        builds: Builds,
        refresh: Refresh,
        filled_at: Callable[[], datetime | None],
        require: Callable[[Int64], None],
        settings: ServingSettings,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._generations = generations
        self._builds = builds
        self._refresh = refresh
        self._filled_at = filled_at
        self._require = require
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._generation: Generation | None = None
        self._base: PopulationSnapshot | None = None  # a newer one, until it is brought up to date
        self._looked_at = 0
        self._wanted = False
        self._failure: str | None = None
        self._lost: str | None = None
        self._refreshed_s: float | None = None
        never = float("-inf")
        self._thorough_s = self._filled_s = self._built_s = self._sampled_s = never
        self._samples = 0
        self.current: PopulationSnapshot | None = None
        self.tried = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """Return what is wrong with the people in memory, as a sentence."""
        if self._failure is not None:
            return self._failure
        if self._lost is not None:
            return self._lost
        if self._generation is not None and self._generation.problem is not None:
            return self._generation.problem
        age_s = self.age_s()
        if age_s is not None and age_s > self._settings.snapshot_stale_s:
            return f"The people in memory are as they were {age_s:.0f} s ago."
        return None

    @property
    def features_lost(self) -> bool:
        """Tell whether the features of people, in memory or online, are not what they were filled with."""
        return self._lost is not None or (self._generation is not None and self._generation.problem is not None)

    def age_s(self) -> float | None:
        """Return how many seconds ago the people in memory were as they are there; None while nobody is."""
        if self._refreshed_s is not None:
            return round(self._clock.monotonic() - self._refreshed_s, 3)
        if self.current is None or self.current.read_at is None:
            return None
        return max(0.0, round((self._clock.now() - self.current.read_at).total_seconds(), 3))

    async def run(self) -> None:
        """Map or build, then refresh for ever."""
        while True:
            await self.step()
            await asyncio.sleep(self._settings.snapshot_refresh_s if self.current is not None else FIRST_RETRY_S)

    async def step(self) -> None:
        """Bring the snapshot up to date once; failures are kept in `problem`."""
        try:
            await self._look_for_newer()
            if self._base is None and self.current is None:
                await self._build_first()
            await self._bring_up_to_date()
            self._failure = None
        except Exception as error:  # noqa: BLE001 a background task must outlive whatever its libraries raise
            self._fail("refreshed", error)
        finally:
            self.tried.set()
        try:
            await self._build_if_wanted()
        except Exception as error:  # noqa: BLE001 as above
            self._fail("written anew", error)
        self._metrics.features_lost.set(float(self.features_lost))

    def _fail(self, what: str, error: Exception) -> None:
        said = str(error) if isinstance(error, SnapshotError) else f"{type(error).__name__}."
        self._failure = f"The population could not be {what}: {said}"
        _log.warning("snapshot_failed", what=what, exc_info=error)

    async def _look_for_newer(self) -> None:
        """Map the newest generation on disk, unless it is in use or was refused before."""
        newest = next(iter(self._generations.numbers()), 0)
        if newest <= self._looked_at:
            return
        after, self._looked_at = self._looked_at, newest
        try:
            generation = await self._in_thread(lambda: self._generations.newest(after=after))
        except UnusableGeneration as error:
            self._wanted = True
            _log.warning("snapshot_refused", reason=str(error))
            return
        if generation is None:
            return
        self._wanted = generation.number < newest
        self._generation, self._base = generation, generation.snapshot
        if self.current is None:  # at once, even if what changed since cannot be read: safety is asked per answer
            self._serve(generation.snapshot)
        _log.info("snapshot_mapped", generation=generation.number, people=len(generation.snapshot.population))

    async def _build_first(self) -> None:
        """Wait for a first generation, whoever writes it."""
        while self._base is None:
            mine = await self._in_thread(self._builds.start)
            if mine:
                await self._in_thread(self._until_built)
                self._built_s = self._clock.monotonic()
            else:
                await asyncio.sleep(_POLL_S)
            await self._look_for_newer()
            if mine:
                return

    def _until_built(self) -> None:
        while self._builds.running():
            time.sleep(_POLL_S)

    async def _bring_up_to_date(self) -> None:
        snapshot = self._base or self.current
        if snapshot is None:
            return
        began_s = self._clock.monotonic()
        thorough = began_s - self._thorough_s >= THOROUGH_EVERY_S
        try:
            refreshed = await self._in_thread(lambda: self._refresh(snapshot, thorough=thorough))
        except SnapshotError:
            self._wanted = True
            raise
        self._refreshed_s, self._base = began_s, None
        if thorough:
            self._thorough_s = began_s
        self._metrics.population_loaded_at.set(self._clock.now().timestamp())
        self._serve(refreshed)
        _log.debug("snapshot_refreshed", ms=round((self._clock.monotonic() - began_s) * 1000))

    def _serve(self, snapshot: PopulationSnapshot) -> None:
        self.current = snapshot
        self._metrics.population_people.set(len(snapshot.population))
        if snapshot.filled_at is not None:
            self._metrics.features_filled_at.set(snapshot.filled_at.timestamp())

    async def _build_if_wanted(self) -> None:
        """Start to write the next generation where there is a reason to, and hear how the last one ended."""
        if self._builds.running() or self._clock.monotonic() - self._built_s < BUILD_PAUSE_S:
            return
        if self._wanted or self._is_worn() or await self._was_refilled():
            self._built_s = self._clock.monotonic()
            await self._in_thread(self._builds.start)

    def _is_worn(self) -> bool:
        if self.current is None or self._generation is None:
            return False
        late = self.current.recent_likes.late
        age_s = (self._clock.now() - self._generation.written_at).total_seconds()
        longest_s = self._settings.snapshot_rebuild_s if self._generation.problem is None else REPAIR_AFTER_S
        return (
            len(self.current.population.tail) > LARGE_TAIL
            or (late is not None and len(late.user_ids) > MANY_LATE_LIKES)
            or age_s > longest_s
        )

    async def _was_refilled(self) -> bool:
        if self.current is None or self._clock.monotonic() - self._filled_s < FILLED_EVERY_S:
            return False
        self._filled_s = self._clock.monotonic()
        try:
            filled_at = await self._in_thread(self._filled_at)
            await self._look_at_some(self.current.population)
        except FeaturesLost as error:
            if self._lost is None:
                _log.warning("online_features_lost", why=str(error))
                self._lost = str(error)
            return False
        except FeaturesUnavailable as error:
            _log.warning("online_store_unknown", why=str(error))
            return False
        self._lost = None
        return filled_at != self.current.filled_at

    async def _look_at_some(self, population: Population) -> None:
        """Once in a while require a few people, spread over all and others each time; raises what `require` does.

        Nobody who is hidden or deleted is required: their features may be gone.
        """
        if self._clock.monotonic() - self._sampled_s < SAMPLE_EVERY_S:
            return
        self._sampled_s = self._clock.monotonic()
        user_ids = population.base.user_ids
        every = -(-len(user_ids) // SAMPLE_PEOPLE) or 1
        sample = np.array(user_ids[self._samples % every :: every])
        here = sample[population.positions(sample) >= 0]
        self._samples += 1
        await self._in_thread(lambda: self._require(here))

    async def _in_thread(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    def close(self) -> None:
        """End the process that writes, and let go of the thread."""
        self._builds.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
