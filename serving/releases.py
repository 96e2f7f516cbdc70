"""Watches the model registry and swaps releases: tried in a child, loaded and warmed in a thread, then one assignment.

The champion is what stands in Production. The challenger is what stands in Staging, held only while an experiment is
active, because a release is memory. What is incoherent, corrupt or fails its trials is refused with a reason, and the
last good one keeps serving; without MLflow the service starts from the last good local copies.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from infra.clock import Clock
from infra.errors import DuetError
from infra.metrics import ServingMetrics
from registry.cache import LocalRelease, ReleaseCache
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import IncoherentRelease, RegistryError, RegistryUnavailable
from registry.release import Release
from registry.store import ModelRegistry
from serving.errors import BreakerOpen, Degraded, LevelUnavailable
from serving.release_slot import Slot

T = TypeVar("T")
SETTLE_LOOKS = 5
"""A stage that still changes after so many looks is taken as it is: what waits for ever never serves."""
_ASK_S = 60.0
_log = structlog.get_logger(__name__)


class Guard(Protocol):
    """What calls of the registry go through: a breaker."""

    async def __call__(self, operation: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Await the operation, or refuse to."""
        ...


async def unguarded(operation: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Await an operation for at most `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        return await operation()


class ReleaseWatcher:
    """Holds the releases that serve.

    `prove` tries a local copy aside and raises RegistryError; `load` loads it; `trial` answers real
    requests with it; `record` notes in the audit what is seen in Production. A stage must look the same twice,
    `settle_s` apart, before it replaces anything: a promotion moves three models, and fifty promotions are one swap.
    """

    def __init__(
        self,
        *,
        registry: ModelRegistry | None,
        cache: ReleaseCache,
        feature_schema_digest: str,
        prove: Callable[[LocalRelease], None],
        load: Callable[[LocalRelease], Release],
        trial: Callable[[Release], None],
        record: Callable[[ModelRegistry], object],
        poll_s: float,
        clock: Clock,
        metrics: ServingMetrics,
        challenger_wanted: Callable[[], bool] = lambda: False,
        guard: Guard = unguarded,
        settle_s: float = 0.5,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._digest = feature_schema_digest
        self._prove = prove
        self._load = load
        self._trial = trial
        self._record = record
        self._poll_s = poll_s
        self._clock = clock
        self._metrics = metrics
        self._wanted = challenger_wanted
        self._guard = guard
        self._settle_s = settle_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="release")
        self._nudged = asyncio.Event()
        self._champion = Slot(PRODUCTION, "No model is in production yet: promote a release.", metrics)
        self._challenger = Slot(STAGING, "No release is in Staging: run `duet promote --staging`.", metrics)
        self.tried = asyncio.Event()

    @property
    def current(self) -> Release | None:
        """Return the champion's release."""
        return self._champion.release

    @property
    def loaded_at(self) -> datetime | None:
        """Return when the champion's release began to serve."""
        return self._champion.loaded_at

    @property
    def refusal(self) -> str | None:
        """Return why the newest release in Production does not serve, if it does not."""
        return self._champion.refusal

    @property
    def challenger(self) -> Release | None:
        """Return the challenger's release; None while no experiment is active or none can serve."""
        return self._challenger.release

    @property
    def challenger_refusal(self) -> str | None:
        """Return why the newest release in Staging does not serve, if it does not."""
        return self._challenger.refusal

    def absence(self) -> Degraded:
        """Return why the champion has no release, for the answer to name."""
        return LevelUnavailable(*self._champion.absence())

    def challenger_absence(self) -> str:
        """Return why the challenger has no release, as a sentence."""
        return self._challenger.absence()[1]

    def nudge(self) -> None:
        """Look soon, without waiting for the poll."""
        self._nudged.set()

    async def run(self) -> None:
        """Start from the last good copy, then look at the registry for ever."""
        while True:
            self._nudged.clear()
            await self.step()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._poll_s)

    async def step(self) -> None:
        """Look once at what is wanted; whatever is wrong is kept in the refusals."""
        try:
            await self._look(self._champion)
            if self._wanted():
                await self._look(self._challenger)
            else:
                self._challenger.clear()
        finally:
            self.tried.set()

    async def _look(self, slot: Slot) -> None:
        try:
            await self._follow(slot)
        except (RegistryUnavailable, BreakerOpen, TimeoutError) as error:
            await self._fall_back(slot, error)
        except RegistryError as error:
            slot.refuse(str(error), error)
        except Exception as error:  # noqa: BLE001 a background task must outlive whatever its libraries raise
            slot.refuse(f"The release could not be loaded: {type(error).__name__}.", error)

    async def _follow(self, slot: Slot) -> None:
        registry = self._registry
        if registry is None:
            raise RegistryUnavailable("No MLflow server is configured: set `DUET_MLFLOW__URL`.")
        versions = await self._settled(registry, slot)
        if versions is None:
            # A challenger that has left Staging is over; a Production that was emptied keeps its last good release.
            if slot is self._challenger:
                slot.clear()
            slot.accept()
            return
        if slot.holds(versions):
            slot.accept()
            return
        if slot.waits(versions, self._clock.monotonic()):
            return
        slot.begin(versions, self._clock.monotonic())
        local = await self._aside(lambda: self._cache.fetch(registry, versions))
        await self._serve(slot, local, is_new=not self._cache.is_good(local, slot.stage))
        if slot is self._champion:
            await self._aside(lambda: self._note_in_audit(registry))

    async def _settled(self, registry: ModelRegistry, slot: Slot) -> ReleaseVersions | None:
        """Return what stands in the stage once it stops changing; raises IncoherentRelease if that is no release."""
        seen = await self._resolve(registry, slot.stage)
        for _ in range(SETTLE_LOOKS):
            stays = isinstance(seen, ReleaseVersions) and slot.holds(seen)
            if slot.release is None or seen is None or stays:
                break
            await asyncio.sleep(self._settle_s)
            before, seen = seen, await self._resolve(registry, slot.stage)
            if seen == before:
                break
        if isinstance(seen, str):
            raise IncoherentRelease(seen)
        return seen

    async def _resolve(self, registry: ModelRegistry, stage: str) -> ReleaseVersions | str | None:
        """Return the release in a stage, None for an empty stage, or why there is none."""

        def ask() -> ReleaseVersions | str | None:
            if not registry.in_stage(stage):
                return None
            try:
                return registry.resolve_stage(stage, self._digest)
            except IncoherentRelease as error:
                return str(error)

        return await self._guard(lambda: self._aside(ask), _ASK_S)

    async def _fall_back(self, slot: Slot, error: Exception) -> None:
        """Start from the last good copy when the registry is away and nothing serves yet."""
        slot.forget_trial()  # it may have gone away in the middle of a download: nothing was found wrong
        if slot.release is not None:
            return
        try:
            local = await self._aside(lambda: self._cache.last_good(slot.stage))
            if local is None:
                reason = str(error) or "The model registry does not answer."
                slot.refusal = reason
                return
            await self._serve(slot, local, is_new=False)
        except Exception as broken:  # noqa: BLE001 as above
            slot.refuse(f"The last good release cannot be loaded: {broken}", broken)

    async def _serve(self, slot: Slot, local: LocalRelease, *, is_new: bool) -> None:
        def ready() -> Release:
            if is_new:
                self._prove(local)
            release = self._load(local)
            self._trial(release)
            self._cache.remember(release, slot.stage)
            return release

        release = await self._aside(ready)
        slot.fill(release, self._clock.now())
        if slot is self._champion:
            knows_until = release.manifests[ArtifactKind.INDEX].lineage.get("as_of")
            if knows_until is not None:
                self._metrics.index_built_at.set(datetime.fromisoformat(knows_until).timestamp())
            for kind in ArtifactKind:
                self._metrics.release_version.labels(kind.value).set(local.versions[kind])
        kept = [held.release.versions for held in (self._champion, self._challenger) if held.release is not None]
        await self._aside(lambda: self._cache.prune(kept))

    def _note_in_audit(self, registry: ModelRegistry) -> None:
        try:
            self._record(registry)
        except DuetError as error:
            # The stage is what counts; the audit catches up the next time a release begins to serve.
            _log.warning("audit_not_written", exc_info=error)

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
