"""Watches the model registry and swaps releases: verified, loaded and tried in a thread, then one assignment.

What is incoherent, corrupt or fails its trial requests is refused with a reason, and the last good release keeps
serving. Without MLflow the service starts from the last good local copy. A request captures the release once, so the
old one lives until the last of its requests is answered.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import structlog

from infra.clock import Clock
from infra.errors import DuetError
from infra.metrics import ServingMetrics
from registry.cache import LocalRelease, ReleaseCache
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.errors import RegistryError, RegistryUnavailable
from registry.release import Release
from registry.store import ModelRegistry
from serving.errors import Degraded, LevelUnavailable
from serving.reasons import Reason

RETRY_REFUSED_S = 60.0
_log = structlog.get_logger(__name__)


class ReleaseWatcher:
    """Holds the release that serves; `load` verifies and loads a local copy, `trial` answers real requests with it."""

    def __init__(
        self,
        *,
        registry: ModelRegistry | None,
        cache: ReleaseCache,
        feature_schema_digest: str,
        load: Callable[[LocalRelease], Release],
        trial: Callable[[Release], None],
        record: Callable[[ModelRegistry], object],
        poll_s: float,
        clock: Clock,
        metrics: ServingMetrics,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._digest = feature_schema_digest
        self._load = load
        self._trial = trial
        self._record = record
        self._poll_s = poll_s
        self._clock = clock
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="release")
        self._refused: tuple[ReleaseVersions, float] | None = None
        self.current: Release | None = None
        self.loaded_at: datetime | None = None
        self.refusal: str | None = None
        self.tried = asyncio.Event()

    def absence(self) -> Degraded:
        """Return why there is no release, for the answer to name."""
        if self.refusal is None:
            return LevelUnavailable(Reason.NO_RELEASE, "No model is in production yet: promote a release.")
        return LevelUnavailable(Reason.RELEASE_REFUSED, self.refusal)

    async def run(self) -> None:
        """Start from the last good copy, then look at the registry for ever."""
        while True:
            await self.step()
            await asyncio.sleep(self._poll_s)

    async def step(self) -> None:
        """Look once; whatever is wrong is kept in `refusal`."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        except RegistryUnavailable as error:
            await self._fall_back(error)
        except RegistryError as error:
            self._refuse(str(error), error)
        except Exception as error:  # noqa: BLE001 a background task must outlive whatever its libraries raise
            self._refuse(f"The release could not be loaded: {type(error).__name__}.", error)
        finally:
            self.tried.set()

    def _look(self) -> None:
        if self._registry is None:
            raise RegistryUnavailable("No MLflow server is configured: set `DUET_MLFLOW__URL`.")
        if not self._registry.in_stage(PRODUCTION):
            self.refusal = None
            return
        versions = self._registry.resolve_stage(PRODUCTION, self._digest)
        if self.current is not None and versions == self.current.versions:
            self._refused, self.refusal = None, None
            return
        if self._refused is not None and self._refused[0] == versions and self._clock.monotonic() < self._refused[1]:
            return
        self._refused = (versions, self._clock.monotonic() + RETRY_REFUSED_S)
        self._serve(self._cache.fetch(self._registry, versions))
        self._refused, self.refusal = None, None
        self._note_in_audit(self._registry)

    async def _fall_back(self, error: RegistryUnavailable) -> None:
        """Start from the last good copy when the registry is away and nothing serves yet."""
        self._refused = None  # it may have gone away in the middle of a download: nothing was found wrong
        local = self._cache.last_good() if self.current is None else None
        if local is None:
            if self.current is None:
                self.refusal = str(error)
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._serve, local)
        except Exception as broken:  # noqa: BLE001 as above
            self._refuse(f"The last good release cannot be loaded: {broken}", broken)

    def _serve(self, local: LocalRelease) -> None:
        release = self._load(local)
        self._trial(release)
        self.current = release
        self.loaded_at = self._clock.now()
        self._cache.remember(release)
        self._cache.prune([release.versions])
        self._metrics.release_swaps.inc()
        for kind in ArtifactKind:
            self._metrics.release_version.labels(kind.value).set(release.versions[kind])
        _log.info("release_serves", release=release.release_id)

    def _note_in_audit(self, registry: ModelRegistry) -> None:
        try:
            self._record(registry)
        except DuetError as error:
            # The stage is what counts; the audit catches up the next time a release begins to serve.
            _log.warning("audit_not_written", exc_info=error)

    def _refuse(self, reason: str, error: BaseException) -> None:
        if reason != self.refusal:
            self._metrics.release_refusals.inc()
            _log.warning("release_refused", reason=reason, exc_info=error)
        self.refusal = reason

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
