"""One place for a release that serves: what is in it, what was refused, and when that is tried again."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import structlog

from infra.metrics import ServingMetrics
from registry.contracts import ReleaseIdentity
from registry.promotion.release_cache import LocalRelease
from registry.release import Release
from serving.reasons import Reason

What = TypeVar("What")
RETRY_REFUSED_S = 60.0
_log = structlog.get_logger(__name__)


@dataclass
class Attempt(Generic[What]):
    """What was tried last, and until which monotonic second it rests if it failed."""

    what: What | None = None
    until_s: float = -math.inf

    def rests(self, what: What, at_s: float) -> bool:
        """Say whether this failed so short a time ago that it is not tried again yet."""
        return what == self.what and at_s < self.until_s

    def note(self, what: What, at_s: float) -> None:
        """Note that this was tried at monotonic `at_s`."""
        self.what, self.until_s = what, at_s + RETRY_REFUSED_S

    def forget(self) -> None:
        """Let whatever was tried be tried again."""
        self.what = None


@dataclass
class Slot:
    """The release of one stage, and why the newest of that stage is not it, if it is not.

    `changed` is called whenever any of that becomes something else. `newest` is the attempt at what the stage holds,
    `copy` that at the last good copy: to load it at each look would be all that a worker does.
    """

    stage: str
    empty: str
    metrics: ServingMetrics
    changed: Callable[[], None] = lambda: None
    release: Release | None = None
    loaded_at: datetime | None = None
    refusal: str | None = None
    newest: Attempt[ReleaseIdentity] = field(default_factory=Attempt, repr=False)
    copy: Attempt[LocalRelease] = field(default_factory=Attempt, repr=False)

    def __post_init__(self) -> None:
        self._refused = self.metrics.release_refused.labels(self.stage.lower())
        self._refused.set(0)

    def absence(self) -> tuple[Reason, str]:
        """Return why there is no release, for the answer to name."""
        if self.refusal is None:
            return Reason.NO_RELEASE, self.empty
        return Reason.RELEASE_REFUSED, self.refusal

    def holds(self, identity: ReleaseIdentity) -> bool:
        """Say whether this very release serves already."""
        return self.release is not None and self.release.identity == identity

    def fill(self, release: Release, at: datetime) -> None:
        """Serve a release: one assignment; requests that captured the old one keep it to their end."""
        self.release = release
        self.loaded_at = at
        self.accept()
        self.changed()
        self.metrics.release_swaps.inc()
        _log.info("release_serves", stage=self.stage, release=release.release_id)

    def accept(self) -> None:
        """Note that what serves is what the stage holds."""
        self.newest.forget()
        self._say(None)

    def forget(self) -> None:
        """Let what was given up in the middle be tried again at once."""
        self.newest.forget()
        self.copy.forget()

    def clear(self) -> None:
        """Hold nothing any more."""
        if self.release is not None:
            _log.info("release_leaves", stage=self.stage, release=self.release.release_id)
            self.changed()
        self.release = self.loaded_at = None
        self.accept()

    def refuse(self, reason: str, error: BaseException) -> None:
        """Keep what serves, and say why nothing newer does."""
        if reason != self.refusal:
            self.metrics.release_refusals.inc()
            _log.warning("release_refused", stage=self.stage, reason=reason, exc_info=error)
        self._say(reason)

    def lack(self, reason: str) -> None:
        """Say why nothing serves, though nothing was refused."""
        self._say(reason)

    def _say(self, reason: str | None) -> None:
        before, self.refusal = self.refusal, reason
        self._refused.set(0 if reason is None else 1)
        if before != reason:
            self.changed()
