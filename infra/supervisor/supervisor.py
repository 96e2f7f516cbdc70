"""Start a set of processes in order, watch them, and stop them in reverse order.

A process that dies is reported at once with the tail of its log and is not restarted: a restart that nobody sees
hides the reason. Only a database that `infra.endpoints` runs is started again, visibly and a few times. One thread
does everything; whoever runs it decides what a signal means through `should_stop`.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import DuetError
from infra.supervisor.errors import ServiceDied, ServiceNotHealthy, StartInterrupted, StepFailed
from infra.supervisor.processes import describe_exit, end, spawn, sweep, tail
from infra.supervisor.spec import External, Service, Spec, Step
from infra.supervisor.state import Phase, PlatformState, ServicePhase, ServiceState, logs_dir, mark_of, write_state

TICK_S = 0.15
PROBE_EVERY_S = 5.0
# A late answer or two on a busy machine are no outage.
PROBE_FAILURES = 3
# A database that keeps dying has a reason that a person has to see.
REVIVALS = 3

Report = Callable[[ServiceState], None]


@dataclass
class _Child:
    spec: Spec
    process: subprocess.Popen[bytes]
    started: float
    log_start: int = 0


class Supervisor:
    """Runs the processes of one platform.

    Args:
        state: described to other commands through the state file after each change.
        report: called after each change of one process.
        should_stop: asked between steps; a start is given up when it says so.
    """

    def __init__(
        self,
        state: PlatformState,
        *,
        report: Report = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state = state
        self._report = report
        self._should_stop = should_stop
        self._children: dict[str, _Child] = {}
        self._externals: dict[str, External] = {}
        self._failures: dict[str, int] = {}
        self._revivals: dict[str, int] = {}
        self._probed_at = 0.0

    def start(self, specs: Sequence[Spec], externals: Sequence[External] = ()) -> None:
        """Start `specs`, each as soon as everything in its `after` is ready, and return when all are.

        Raises:
            ServiceDied, ServiceNotHealthy, StepFailed: with the tail of the log in the state's reason.
            StartInterrupted: `should_stop` said so.
        """
        _check_order(specs)
        for external in externals:
            self._externals[external.name] = external
            self._change(external.name, ServicePhase.HEALTHY, url=external.url, log=external.log)
        for spec in specs:
            self._change(
                spec.name,
                ServicePhase.WAITING,
                url=spec.url if isinstance(spec, Service) else None,
                log=self._log_path(spec.name),
            )
        waiting = list(specs)
        ready: set[str] = set()
        while len(ready) < len(specs):
            if self._should_stop():
                raise StartInterrupted("the start was interrupted before everything was healthy")
            for spec in [s for s in waiting if ready.issuperset(s.after)]:
                waiting.remove(spec)
                self._spawn(spec)
            for name, child in self._children.items():
                if self._is_ready(child, already=name in ready):
                    ready.add(name)
            if len(ready) < len(specs):
                time.sleep(TICK_S)

    def watch(self) -> None:
        """Look at every process once; report deaths at once, and health every few seconds."""
        for name, child in self._children.items():
            state = self.state.services[name]
            if isinstance(child.spec, Step) or state.phase is ServicePhase.DIED:
                continue
            code = child.process.poll()
            if code is not None:
                self._change(name, ServicePhase.DIED, detail=self._obituary(child, code))
        if time.monotonic() - self._probed_at >= PROBE_EVERY_S:
            self._probe_all()
            self._probed_at = time.monotonic()
        healthy = all(s.phase in {ServicePhase.HEALTHY, ServicePhase.DONE} for s in self.state.services.values())
        phase = Phase.RUNNING if healthy else Phase.DEGRADED
        if self.state.phase is not phase:
            self.state.phase = phase
            write_state(self.state)

    def stop(self) -> None:
        """Stop every process in reverse order of its start, then whatever they left over."""
        for name, child in reversed(self._children.items()):
            end(child.process, child.spec.stop_grace_s)
            if self.state.services[name].phase not in {ServicePhase.DIED, ServicePhase.DONE}:
                self._change(name, ServicePhase.STOPPED)
        sweep(mark_of(self.state.data_dir))

    def _spawn(self, spec: Spec) -> None:
        log = self._log_path(spec.name)
        log_start = log.stat().st_size if log.exists() else 0
        try:
            process = spawn(
                spec.command,
                mark=mark_of(self.state.data_dir),
                environment=spec.environment,
                log_path=log,
            )
        except OSError as refused:
            raise ServiceDied(f"{spec.name} cannot be started: {spec.command[0]}: {refused.strerror}") from refused
        self._children[spec.name] = _Child(spec, process, time.monotonic(), log_start)
        self._change(spec.name, ServicePhase.STARTING, pid=process.pid)

    def _is_ready(self, child: _Child, *, already: bool) -> bool:
        spec, code = child.spec, child.process.poll()
        if isinstance(spec, Step):
            if code is not None and code != 0:
                self._change(spec.name, ServicePhase.DIED, detail=self._obituary(child, code))
                raise StepFailed(f"{spec.name} {self.state.services[spec.name].detail}")
            if code == 0 and not already:
                self._change(spec.name, ServicePhase.DONE, ready_after_s=self._age(child))
            refusal = None if code == 0 else "it is not done"
        elif code is not None:
            self._change(spec.name, ServicePhase.DIED, detail=self._obituary(child, code))
            raise ServiceDied(f"{spec.name} {self.state.services[spec.name].detail}")
        elif already:
            return True
        else:
            refusal = spec.probe.check() if spec.probe is not None else None
            if refusal is None:
                self._change(spec.name, ServicePhase.HEALTHY, ready_after_s=self._age(child))
        if refusal is not None and time.monotonic() - child.started > spec.start_timeout_s:
            self._change(spec.name, ServicePhase.UNHEALTHY, detail=refusal)
            log = self._log_path(spec.name)
            raise ServiceNotHealthy(
                f"{spec.name} is not healthy after {spec.start_timeout_s:g} s: {refusal}; its log is {log}"
            )
        return refusal is None

    def _probe_all(self) -> None:
        probed = [(c.spec.name, c.spec.probe) for c in self._children.values() if isinstance(c.spec, Service)]
        probed += [(external.name, external.probe) for external in self._externals.values()]
        for name, probe in probed:
            state = self.state.services[name]
            if probe is None or state.phase is ServicePhase.DIED:
                continue
            refusal = probe.check()
            self._failures[name] = 0 if refusal is None else self._failures.get(name, 0) + 1
            if refusal is None and state.phase is ServicePhase.UNHEALTHY:
                self._change(name, ServicePhase.HEALTHY)
            elif self._failures[name] == PROBE_FAILURES:
                self._change(name, ServicePhase.UNHEALTHY, detail=refusal)
                self._revive(name)

    def _revive(self, name: str) -> None:
        external = self._externals.get(name)
        if external is None or external.revive is None or self._revivals.get(name, 0) >= REVIVALS:
            return
        self._revivals[name] = self._revivals.get(name, 0) + 1
        self._failures[name] = 0
        try:
            external.revive()
        except DuetError as failure:
            self._change(name, ServicePhase.UNHEALTHY, detail=f"cannot be started again: {failure}")
        else:
            detail = f"it did not answer and was started again ({self._revivals[name]} of {REVIVALS} times)"
            self._change(name, ServicePhase.UNHEALTHY, detail=detail)

    def _change(
        self,
        name: str,
        phase: ServicePhase,
        *,
        pid: int | None = None,
        url: str | None = None,
        log: Path | None = None,
        detail: str | None = None,
        ready_after_s: float | None = None,
    ) -> None:
        before = self.state.services.get(name) or ServiceState(name=name)
        self.state.services[name] = before.model_copy(
            update={
                "phase": phase,
                "pid": pid or before.pid,
                "url": url or before.url,
                "log": log or before.log,
                "detail": detail,
                "ready_after_s": ready_after_s or before.ready_after_s,
            }
        )
        write_state(self.state)
        self._report(self.state.services[name])

    def _obituary(self, child: _Child, code: int) -> str:
        log = self._log_path(child.spec.name)
        words = f"ended with {describe_exit(code)}; its log is {log}"
        last = _last_words(tail(log)) if log.stat().st_size > child.log_start else ""
        return f"{words} and ends: {last}" if last else words

    def _log_path(self, name: str) -> Path:
        return logs_dir(self.state.data_dir) / f"{name}.log"

    @staticmethod
    def _age(child: _Child) -> float:
        return round(time.monotonic() - child.started, 2)


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _check_order(specs: Sequence[Spec]) -> None:
    """Refuse a set that could never finish starting: it is a mistake of the programmer."""
    known: set[str] = set()
    for spec in specs:
        missing = set(spec.after) - known
        if missing or spec.name in known:
            raise ValueError(f"`{spec.name}` must be unique and come after {sorted(missing) or 'itself'} in the list")
        known.add(spec.name)
