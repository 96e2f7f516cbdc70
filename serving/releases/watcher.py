"""Watches the model registry and swaps releases: tried in a child, loaded and warmed in a thread, then one assignment.

The champion is what stands in Production, or what a rollback has pinned, which needs no registry. The challenger is
what stands in Staging, held only while an experiment is active, because a release is memory. What is incoherent,
corrupt or fails its trials is refused with a reason, and the last good one keeps serving; without MLflow the service
starts from the last good local copies.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import TypeVar

import structlog

from infra.clock import Clock
from infra.errors import DuetError
from infra.faults import failpoint
from infra.mapped import forget_pages
from infra.metrics import ServingMetrics
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseIdentity
from registry.errors import CorruptArtifact, IncoherentRelease, RegistryError, RegistryUnavailable
from registry.mlflow.observer import Observed
from registry.promotion.audit import Pin
from registry.promotion.release_cache import LocalRelease, ReleaseCache
from registry.release import Release
from registry.store import ModelRegistry
from serving.errors import BreakerOpen, Degraded, LevelUnavailable, Overtaken
from serving.releases.decision import ReleaseDecision
from serving.releases.slot import Slot
from serving.releases.stage_view import RegistryBreaker, StageView, unguarded

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class ReleaseWatcher:
    """Holds the releases that serve.

    `prove` tries a local copy aside and raises RegistryError, and `give_up` ends that; `load` loads it; `trial` answers
    real requests with it; `observe` brings audit and registry in step, told the stages that were looked at; `pinned`
    returns the open pin.
    """

    def __init__(
        self,
        *,
        registry: ModelRegistry | None,
        cache: ReleaseCache,
        feature_schema: str,
        prove: Callable[[LocalRelease], None],
        load: Callable[[LocalRelease], Release],
        trial: Callable[[Release], None],
        observe: Callable[[ModelRegistry, tuple[str, ...], Callable[[ReleaseIdentity], bool]], Observed],
        poll_s: float,
        clock: Clock,
        metrics: ServingMetrics,
        pinned: Callable[[], Pin | None] = lambda: None,
        challenger_wanted: Callable[[], bool] = lambda: False,
        guard: RegistryBreaker = unguarded,
        settle_s: float = 0.5,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._cache = cache
        # A registry that does not answer holds threads for a while; a pinned release must not wait for them.
        self._view = StageView(registry, feature_schema, guard, settle_s)
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="release-loading")
        self._prove = prove
        self._give_up = give_up
        self._load = load
        self._trial = trial
        self._observe = observe
        self._pinned = pinned
        self._poll_s = poll_s
        self._clock = clock
        self._metrics = metrics
        self._wanted = challenger_wanted
        self._nudged = asyncio.Event()
        self._urgent = asyncio.Event()
        self.changed = asyncio.Event()
        said = self.changed.set
        self._champion = Slot(PRODUCTION, "No model is in production yet: promote a release.", metrics, said)
        self._challenger = Slot(STAGING, "No release is in Staging: run `duet promote --staging`.", metrics, said)
        self._noted: object = None
        self._unwritten: str | None = None
        self._pin_problem: str | None = None
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
    def pin(self) -> Pin | None:
        """Return the open pin, which the champion obeys."""
        return self._pinned()

    @property
    def pin_problem(self) -> str | None:
        """Return why the open pin can never end, if so."""
        return self._pin_problem if self._pinned() is not None else None

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

    def nudge(self, *, urgent: bool = False) -> None:
        """Look soon, without waiting for the poll; `urgent` gives up what is being waited for just now, too."""
        self._nudged.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Start from the last good copy, then look at the registry for ever."""
        while True:
            self._nudged.clear()
            self._urgent.clear()
            step = asyncio.create_task(self.step())
            urgent = asyncio.create_task(self._urgent.wait())
            try:
                await asyncio.wait({step, urgent}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (step, urgent):
                    task.cancel()
                await asyncio.gather(step, urgent, return_exceptions=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._poll_s)

    async def step(self) -> None:
        """Look once at what is wanted; whatever is wrong is kept in the refusals."""
        stages: tuple[str, ...] = (PRODUCTION,)
        try:
            answers = await self._look(self._champion)
            if self._wanted():
                answers = await self._look(self._challenger) and answers
                stages = (PRODUCTION, STAGING)
            else:
                self._challenger.clear()
        finally:
            self.tried.set()
        if answers:
            await self._note(stages)

    async def _look(self, slot: Slot) -> bool:
        """Follow what a stage holds; return whether the registry may be asked more."""
        pin = None
        if slot is self._champion:
            pin = self._pinned()
            self._metrics.release_pinned.set(0 if pin is None else 1)
        decision = ReleaseDecision(
            (lambda: self._pinned() == pin) if slot is self._champion else self._wanted, stopped=self._give_up
        )
        try:
            await (self._follow(slot, decision) if pin is None else self._obey(slot, pin, decision))
        except (asyncio.CancelledError, Overtaken) as error:
            slot.forget()  # it was given up, not found wrong
            if isinstance(error, Overtaken):
                return False
            raise
        except (RegistryUnavailable, BreakerOpen, TimeoutError) as error:
            slot.newest.forget()  # it may have gone away in the middle of a download: nothing was found wrong
            restored = await self._restored(slot, decision)
            if restored is None:
                return False
            if pin is not None:
                slot.refuse(f"The pinned release {pin.versions.release_id} has no copy here: {error}", error)
            elif not restored:
                slot.lack(str(error) or "The model registry does not answer.")
            return False
        except Exception as error:  # noqa: BLE001 a background task must outlive whatever its libraries raise
            if await self._restored(slot, decision) is None:
                return False
            known = isinstance(error, RegistryError)
            slot.refuse(str(error) if known else f"The release could not be loaded: {type(error).__name__}.", error)
        return True

    async def _restored(self, slot: Slot, decision: ReleaseDecision) -> bool | None:
        """Restore, and return None where the decision does not count any more: then nothing is to be said of it."""
        try:
            restored = await self._restore(slot, decision)
            decision.require()
        except (asyncio.CancelledError, Overtaken) as error:
            slot.forget()
            if isinstance(error, Overtaken):
                return None
            raise
        return restored

    async def _obey(self, slot: Slot, pin: Pin, decision: ReleaseDecision) -> None:
        """Serve a pinned release from its copy here; only without one is the registry asked."""
        if slot.holds(pin.identity):
            await self._stay(slot, decision)
            return
        if slot.newest.rests(pin.identity, self._clock.monotonic()):
            return
        slot.newest.note(pin.identity, self._clock.monotonic())
        local = await self._aside(lambda: self._cache.copy_of(pin.versions, pin.digests))
        if local is not None:
            try:
                await self._serve(slot, local, decision, is_new=not self._cache.is_good(local))
            except CorruptArtifact as error:
                _log.warning("copy_damaged", release=pin.versions.release_id, reason=str(error))
            else:
                return
        fetched = await self._view.fetched(pin.versions, self._cache)
        if fetched.digests != pin.digests:
            raise IncoherentRelease(
                f"{pin.versions.release_id} in MLflow is made of other bytes than the pinned release: promote another."
            )
        await self._serve(slot, fetched, decision, is_new=not self._cache.is_good(fetched))

    async def _follow(self, slot: Slot, decision: ReleaseDecision) -> None:
        standing = await self._view.settled(slot)
        decision.require()
        if standing is None:
            # A challenger that has left Staging is over; a Production that was emptied keeps its last good release.
            if slot is self._challenger:
                slot.clear()
            elif slot.release is None and await self._restore(slot, decision):
                return
            decision.require()
            slot.accept()
            return
        if slot.holds(standing):
            await self._stay(slot, decision)
            return
        if slot.newest.rests(standing, self._clock.monotonic()):
            return
        slot.newest.note(standing, self._clock.monotonic())
        local = await self._view.fetched(standing.versions, self._cache)
        failpoint("swap.after_fetch")
        await self._serve(slot, local, decision, is_new=not self._cache.is_good(local))

    async def _restore(self, slot: Slot, decision: ReleaseDecision) -> bool:
        """Start from the last good copy where nothing serves yet; return whether something does, or why not is said."""
        if slot.release is not None:
            return True
        local = None
        try:
            local = await self._aside(lambda: self._cache.last_good(slot.stage))
            if local is not None and not slot.copy.rests(local, self._clock.monotonic()):
                await self._serve(slot, local, decision, is_new=False)
        except Overtaken:
            raise
        except Exception as broken:  # noqa: BLE001 as above
            decision.require()
            if local is not None:
                slot.copy.note(local, self._clock.monotonic())
            slot.refuse(f"The last good release cannot be loaded: {broken}", broken)
            return True
        return local is not None

    async def _serve(self, slot: Slot, local: LocalRelease, decision: ReleaseDecision, *, is_new: bool) -> None:
        serving = self._already(local)

        def ready() -> Release:
            decision.go_on()
            if serving is not None:
                return serving
            if is_new:
                self._prove(local)
                failpoint("swap.after_prove")
                decision.go_on()
            release = self._load(local)
            failpoint("swap.after_load")
            decision.go_on()
            self._trial(release)
            failpoint("swap.after_trial")
            return release

        release, before = await decision.work(self._loading, ready), slot.release
        slot.fill(release, self._clock.now())
        failpoint("swap.after_fill")
        if slot is self._champion:
            knows_until = release.manifests[ArtifactKind.INDEX].lineage.get("as_of")
            if knows_until is not None:
                self._metrics.index_built_at.set(datetime.fromisoformat(knows_until).timestamp())
            for kind in ArtifactKind:
                self._metrics.release_version.labels(kind.value).set(local.versions[kind])
        await self._aside(lambda: self._remember(slot))
        await self._aside(self._prune)
        if before is not None and not any(before is one.release for one in (self._champion, self._challenger)):
            # Or else it would all be unmapped at once, by whichever request has it last, while others wait.
            await self._aside(lambda: forget_pages(before.addresses))

    async def _stay(self, slot: Slot, decision: ReleaseDecision) -> None:
        """Go on with what serves, and see that a restart would begin with it."""
        await self._aside(lambda: self._remember(slot))
        decision.require()
        slot.accept()

    def _remember(self, slot: Slot) -> None:
        """Note what serves now, whatever was meant to serve when this was asked for; only in the loading thread."""
        release = slot.release
        if release is None or self._cache.begins_with(release, slot.stage):
            return
        try:
            self._cache.remember(release, slot.stage)
        except OSError as error:
            # It serves all the same, and the next look tries again.
            _log.warning("release_not_remembered", release=release.release_id, error=str(error))
        failpoint("swap.after_remember")

    def _prune(self) -> None:
        """Remove copies that nobody needs, as things are now: what is being fetched meanwhile stays."""
        slots = (self._champion, self._challenger)
        held = [slot.release.versions for slot in slots if slot.release is not None]
        self._cache.prune([*held, *(slot.newest.what.versions for slot in slots if slot.newest.what is not None)])

    def _already(self, local: LocalRelease) -> Release | None:
        """Return this release if it serves in the other slot: then all that is left is to swap."""
        for held in (self._champion.release, self._challenger.release):
            if held is not None and held.identity == local.identity:
                return held
        return None

    async def _note(self, stages: tuple[str, ...]) -> None:
        """Bring audit and registry in step where what is seen changed since that last went well, or a pin waits."""
        held = [slot.release.identity if slot.release else None for slot in (self._champion, self._challenger)]
        seen = (held, stages, dict(self._view.seen))
        if seen == self._noted and self._pinned() is None:
            self._pin_problem = None
            return
        problem = unwritten = None
        try:
            observed = await self._view.ask(lambda registry: self._observe(registry, stages, self._champion.holds))
        except DuetError as error:
            # The stage is what counts; the audit catches up at the next look.
            unwritten = str(error) or type(error).__name__
        else:
            self._noted = seen
            problem = observed.pin_problem
        if unwritten is not None and unwritten != self._unwritten:
            _log.warning("audit_not_written", reason=unwritten)
        if problem is not None and problem != self._pin_problem:
            _log.warning("pin_cannot_end", reason=problem)
        self._unwritten = unwritten
        if unwritten is None:
            self._pin_problem = problem

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loading, work)

    def close(self) -> None:
        """Let go of the threads."""
        self._view.close()
        self._loading.shutdown(wait=False, cancel_futures=True)
