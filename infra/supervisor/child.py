"""One process of a platform over all its starts: when it began, what it said last, when it is started again."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from infra.progress import Progress, family
from infra.supervisor.asking import Kind
from infra.supervisor.backoff import Backoff
from infra.supervisor.processes import clear, describe_exit, tail
from infra.supervisor.spec import Probe, Service, Spec, StartedProbe

LONGEST_WORDS = 300


class Child:
    """A process that is started, ends or is ended, and is started again.

    Attributes:
        process: the present one; None before the first start.
        probe: tells whether the present process is healthy.
        generation: how many processes there were.
        refusals: how many probes in a row found it not healthy.
        why: why it was started again; None for the first start.
    """

    def __init__(self, spec: Spec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.probe: Probe | None = None
        self.generation = 0
        self.refusals = 0
        self.why: str | None = None
        self._backoff = Backoff()
        self._progress: Progress | None = None
        self._started = time.monotonic()
        self._log_start = self._size()
        self._due_at: float | None = None
        self._kill_at: float | None = None
        self._silent_since: float | None = None
        self._was_late = False

    def began(self, process: subprocess.Popen[bytes]) -> None:
        """Note that `process` is the present one."""
        self.process = process
        self.generation += 1
        self.refusals = 0
        self.probe = self.spec.probe if isinstance(self.spec, Service) else None
        if isinstance(self.probe, StartedProbe):
            self.probe = self.probe.started(time.time())
        self._started = time.monotonic()
        self._due_at = self._kill_at = self._silent_since = None
        self._was_late = False
        self._progress = Progress(self.spec.start_timeout_s, self.log, lambda: family(process.pid))

    def questions(self) -> Iterator[tuple[Kind, Probe]]:
        """Give what is to be asked of it."""
        if self.probe is not None:
            yield "ready", self.probe
        if isinstance(self.spec, Service) and self.spec.alive is not None:
            yield "alive", self.spec.alive

    def poll(self) -> int | None:
        """Return the exit code of the present process, None while it runs."""
        return None if self.process is None else self.process.poll()

    @property
    def age_s(self) -> float:
        """Seconds since the present process was started."""
        return round(time.monotonic() - self._started, 2)

    @property
    def limit(self) -> str:
        """The limit of its start, in words."""
        setting = f" ({self.spec.limit_setting})" if self.spec.limit_setting else ""
        return f"{self.spec.start_timeout_s:g} s{setting}"

    def given_up(self, refusal: str) -> str | None:
        """Return in words that the start is to be given up, or None while it makes progress."""
        how_long = self._progress.given_up() if self._progress is not None else None
        if how_long is None:
            return None
        more = f"; {self.spec.limit_setting} ({self.spec.start_timeout_s:g} s) sets the limit"
        return (
            f"is not healthy {how_long}: {refusal}; its log is {self.log}{self._last_words()}"
            f"{more if self.spec.limit_setting else ''}"
        )

    def says_that_it_is_late(self) -> bool:
        """Tell once in each start that it takes longer than its limit."""
        if self._was_late or self._progress is None or not self._progress.is_late:
            return False
        self._was_late = True
        return True

    def heard(self, refusal: str | None) -> float:
        """Note an answer to the question whether it lives; return for how many seconds it has not."""
        now = time.monotonic()
        if refusal is None:
            self._silent_since = None
            return 0.0
        if self._silent_since is None:
            self._silent_since = now
        return now - self._silent_since

    def became_healthy(self) -> None:
        """Note that it is healthy: it does not hang, and after five minutes its next restart is immediate again."""
        self.refusals = 0
        self._silent_since = None
        self._backoff.healthy(time.monotonic())

    def failed(self) -> float:
        """Have it started again after a wait, and return the seconds."""
        wait_s = self._backoff.failed(time.monotonic())
        self.start_at(time.monotonic() + wait_s)
        return wait_s

    def start_at(self, due: float) -> None:
        """Have it started again at `due`, monotonic seconds."""
        self._due_at, self._kill_at = due, None

    @property
    def is_due(self) -> bool:
        """Tell whether it is to be started now."""
        return self._due_at is not None and time.monotonic() >= self._due_at

    def begin_to_end(self) -> None:
        """Ask the present process to end; `has_ended` tells when it has."""
        self._kill_at = time.monotonic() + self.spec.stop_grace_s
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.terminate()

    @property
    def is_being_ended(self) -> bool:
        """Tell whether it was asked to end."""
        return self._kill_at is not None

    def has_ended(self) -> bool:
        """Tell whether the process that was asked to end has ended, or had its time."""
        return self.poll() is not None or (self._kill_at is not None and time.monotonic() >= self._kill_at)

    def clear(self, mark: str, outlives: str | None) -> None:
        """Kill what is left of the present process."""
        if self.process is not None:
            clear(self.process, mark, self.spec.name, outlives)

    def obituary(self, code: int) -> str:
        """Say how the present process ended, and what it said last."""
        return f"ended with {describe_exit(code)}; its log is {self.log}{self._last_words()}"

    def _last_words(self) -> str:
        if self._size() <= self._log_start:
            return ""
        lines = [line.strip() for line in tail(self.log).splitlines() if line.strip()]
        return f" and ends: {lines[-1][:LONGEST_WORDS]}" if lines else ""

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0
