"""Start a set of processes in order, watch them, start again what died or hangs, and stop them in reverse order.

A start in which a process dies is given up with its last words: a person is looking at it. Later a process that died,
or that does not work for a minute, is started again, visibly, after a wait that grows to a minute and is short
again after five healthy minutes. One thread changes everything; questions and the revival of a database run beside it.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from infra.supervisor.asking import Asker, HealthQuestion
from infra.supervisor.child import Child
from infra.supervisor.errors import ServiceDied, ServiceNotHealthy, StartInterrupted, StepFailed
from infra.supervisor.externals import WatchedServer
from infra.supervisor.processes import end, spawn, sweep
from infra.supervisor.requests import take_requests
from infra.supervisor.spec import External, Probe, Service, Spec, StartStep
from infra.supervisor.state import Phase, PlatformState, ServicePhase, ServiceState, logs_dir, mark_of, publish_state

TICK_S = 0.15
PROBE_EVERY_S = 5.0
# What is being started again is asked more often: somebody waits for it.
STARTING_EVERY_S = 0.5
# A late answer or two on a busy machine are no outage.
PROBE_FAILURES = 3
# A process that is there but does not work for so long is ended and started again.
HUNG_AFTER_S = 60.0

Report = Callable[[ServiceState], None]
_ASKED = {ServicePhase.STARTING, ServicePhase.HEALTHY, ServicePhase.UNHEALTHY}


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
        self._children: dict[str, Child] = {}
        self._externals: dict[str, WatchedServer] = {}
        self._asker = Asker()

    def start(self, specs: Sequence[Spec], externals: Sequence[External] = ()) -> None:
        """Start `specs`, each as soon as everything in its `after` is ready, and return when all are.

        Raises:
            ServiceDied, ServiceNotHealthy, StepFailed: with the tail of the log in the state's reason.
            StartInterrupted: `should_stop` said so.
        """
        _check_order(specs)
        for external in externals:
            self._externals[external.name] = WatchedServer(external)
            is_ours = external.revive is not None
            self._change(external.name, ServicePhase.HEALTHY, url=external.url, log=external.log, is_ours=is_ours)
        for spec in specs:
            self._change(
                spec.name,
                ServicePhase.WAITING,
                url=spec.url if isinstance(spec, Service) else None,
                log=self._log_path(spec.name),
                is_ours=isinstance(spec, Service),
            )
        waiting = list(specs)
        ready: set[str] = set()
        while len(ready) < len(specs):
            if self._should_stop():
                raise StartInterrupted("the start was interrupted before everything was healthy")
            for spec in [s for s in waiting if ready.issuperset(s.after)]:
                waiting.remove(spec)
                self._children[spec.name] = Child(spec, self._log_path(spec.name))
                if (refused := self._spawn(self._children[spec.name])) is not None:
                    raise ServiceDied(f"{spec.name} {refused}")
            for name, child in self._children.items():
                if self._is_ready(child, already=name in ready):
                    ready.add(name)
            if len(ready) < len(specs):
                time.sleep(TICK_S)

    def watch(self) -> None:
        """Look at every process once: obey requests, report and mend deaths, and judge the answers that came."""
        for name in take_requests(self.state.data_dir):
            self._restart_asked(name)
        for child in self._children.values():
            self._look_at(child)
        for watched in self._externals.values():
            if (change := watched.look()) is not None:
                self._change(watched.spec.name, change.phase, detail=change.detail)
        for question, refusal in self._asker.answers():
            self._hear(question, refusal)
        self._ask()
        self._say_where_all_stands()

    def stop(self) -> None:
        """Stop every process in reverse order of its start, then whatever they left over."""
        self._asker.close()
        for name, child in reversed(self._children.items()):
            if child.process is not None:
                end(child.process, child.spec.stop_grace_s)
            if self.state.services[name].phase not in {ServicePhase.DIED, ServicePhase.DONE}:
                self._change(name, ServicePhase.STOPPED)
        for watched in self._externals.values():
            watched.close()
        sweep(mark_of(self.state.data_dir))

    def _spawn(self, child: Child) -> str | None:
        """Start the process of `child`; return why that is impossible, or None."""
        spec = child.spec
        try:
            process = spawn(
                spec.command,
                mark=mark_of(self.state.data_dir),
                environment=spec.environment,
                log_path=child.log,
                name=spec.name,
            )
        except OSError as refused:
            return f"cannot be started: {spec.command[0]}: {refused.strerror}"
        child.began(process)
        self._change(spec.name, ServicePhase.STARTING, pid=process.pid, detail=child.why)
        return None

    def _is_ready(self, child: Child, *, already: bool) -> bool:
        """Tell whether a process of the first start is ready; raises when it never will be."""
        spec, code = child.spec, child.poll()
        if code is not None and not (isinstance(spec, StartStep) and code == 0):
            self._change(spec.name, ServicePhase.DIED, detail=child.obituary(code))
            failure = StepFailed if isinstance(spec, StartStep) else ServiceDied
            raise failure(f"{spec.name} {self.state.services[spec.name].detail}")
        if already:
            return True
        if isinstance(spec, StartStep):
            refusal = None if code == 0 else "it is not done"
        else:
            refusal = child.probe.check() if child.probe is not None else None
        if refusal is None:
            phase = ServicePhase.DONE if isinstance(spec, StartStep) else ServicePhase.HEALTHY
            self._became_ready(child, phase)
            return True
        given_up = self._given_up(child, refusal)
        if given_up is not None:
            self._change(spec.name, ServicePhase.UNHEALTHY, detail=refusal)
            raise ServiceNotHealthy(f"{spec.name} {given_up}")
        return False

    def _given_up(self, child: Child, refusal: str) -> str | None:
        """Return in words that a start makes no progress, or None; report once that it takes longer than its limit."""
        given_up = child.given_up(refusal)
        if given_up is None and child.says_that_it_is_late():
            detail = f"takes longer than {child.limit}, but makes progress: {refusal}"
            self._change(child.spec.name, ServicePhase.STARTING, detail=detail)
        return given_up

    def _became_ready(self, child: Child, phase: ServicePhase) -> None:
        child.became_healthy()
        self._change(child.spec.name, phase, ready_after_s=child.age_s)
        if child.why is not None and isinstance(child.spec, Service):
            for name in child.spec.again:
                again = self._children[name]
                again.why = f"done again after the restart of {child.spec.name}"
                if again.poll() is not None and (refused := self._spawn(again)) is not None:
                    self._change(name, ServicePhase.DIED, detail=refused)

    def _look_at(self, child: Child) -> None:
        """Mend a process that ended, go on with one that is being ended, start again what is due."""
        phase, code = self.state.services[child.spec.name].phase, child.poll()
        if isinstance(child.spec, StartStep):
            if phase is ServicePhase.STARTING:
                self._look_at_step(child, code)
        elif child.is_due:
            child.why = child.why or "started again"
            if (refused := self._spawn(child)) is not None:
                self._died(child, refused)
        elif child.is_being_ended:
            if child.has_ended():
                self._clear(child)
                child.start_at(time.monotonic())
        elif code is not None and phase is not ServicePhase.DIED:
            self._died(child, child.obituary(code))
        elif phase is ServicePhase.STARTING and child.probe is None:
            self._became_ready(child, ServicePhase.HEALTHY)

    def _look_at_step(self, child: Child, code: int | None) -> None:
        """See how a step ends that is done again: a failure is shown, and ends nothing else."""
        name, given_up = child.spec.name, child.given_up("it is not done")
        if code == 0:
            self._change(name, ServicePhase.DONE)
        elif code is not None or given_up is not None:
            child.clear(mark_of(self.state.data_dir), None)
            self._change(name, ServicePhase.DIED, detail=given_up if code is None else child.obituary(code))

    def _died(self, child: Child, how: str) -> None:
        self._clear(child)
        wait_s = child.failed()
        child.why = f"started again, because it {how}"
        self._change(child.spec.name, ServicePhase.DIED, detail=f"{how}; it is started again in {wait_s:.0f} s")

    def _clear(self, child: Child) -> None:
        if isinstance(child.spec, Service):
            child.clear(mark_of(self.state.data_dir), child.spec.outlives)

    def _restart_asked(self, name: str) -> None:
        child, watched = self._children.get(name), self._externals.get(name)
        is_service = child is not None and isinstance(child.spec, Service)
        if not is_service and (watched is None or watched.spec.revive is None):
            return
        asked = self.state.services[name].restarts_asked + 1
        why = "started anew, because somebody asked for it"
        self._change(name, ServicePhase.STARTING, detail=why, restarts_asked=asked)
        if watched is not None:
            watched.restart()
        elif child is not None:
            child.why = why
            child.begin_to_end()

    def _ask(self) -> None:
        questions: dict[HealthQuestion, tuple[Probe, float]] = {}
        for name, service in self.state.services.items():
            if service.phase not in _ASKED:
                continue
            starting = service.phase is ServicePhase.STARTING
            every_s = min(STARTING_EVERY_S, PROBE_EVERY_S) if starting else PROBE_EVERY_S
            if (watched := self._externals.get(name)) is not None:
                if not watched.is_being_revived:
                    questions[HealthQuestion(name, "ready", watched.generation)] = (watched.spec.probe, every_s)
            elif (child := self._children.get(name)) is not None and not child.is_being_ended:
                for kind, probe in child.questions():
                    questions[HealthQuestion(name, kind, child.generation)] = (probe, every_s)
        self._asker.ask(questions)

    def _hear(self, question: HealthQuestion, refusal: str | None) -> None:
        if (watched := self._externals.get(question.name)) is not None:
            if question.generation == watched.generation and not watched.is_being_revived:
                self._hear_of_external(watched, refusal)
            return
        child = self._children[question.name]
        if question.generation != child.generation or child.is_being_ended or child.poll() is not None:
            return  # the answer of an earlier process, or of one that is no more
        if question.kind == "alive":
            self._hear_whether_it_lives(child, refusal)
        elif self.state.services[question.name].phase is not ServicePhase.STARTING:
            self._hear_whether_it_is_well(child, refusal)
        elif refusal is None:
            self._became_ready(child, ServicePhase.HEALTHY)
        elif (given_up := self._given_up(child, refusal)) is not None:
            self._died(child, given_up)

    def _hear_whether_it_lives(self, child: Child, refusal: str | None) -> None:
        silent_s = child.heard(refusal)
        at_least_s = child.spec.hung_after_s if isinstance(child.spec, Service) else 0.0
        hangs = refusal is not None and silent_s >= max(HUNG_AFTER_S, at_least_s)
        if hangs and self.state.services[child.spec.name].phase is not ServicePhase.STARTING:
            self._died(child, f"did not work for {silent_s:.0f} s and was ended: {refusal}")

    def _hear_whether_it_is_well(self, child: Child, refusal: str | None) -> None:
        name = child.spec.name
        if refusal is None:
            child.became_healthy()
            if self.state.services[name].phase is ServicePhase.UNHEALTHY:
                self._change(name, ServicePhase.HEALTHY)
            return
        child.refusals += 1
        if child.refusals == PROBE_FAILURES:
            self._change(name, ServicePhase.UNHEALTHY, detail=refusal)

    def _hear_of_external(self, watched: WatchedServer, refusal: str | None) -> None:
        name, phase = watched.spec.name, self.state.services[watched.spec.name].phase
        watched.refusals = 0 if refusal is None else watched.refusals + 1
        if refusal is None:
            watched.backoff.healthy(time.monotonic())
            if phase is not ServicePhase.HEALTHY:
                self._change(name, ServicePhase.HEALTHY)
        elif watched.refusals == PROBE_FAILURES:
            watched.failed()
            self._change(name, ServicePhase.UNHEALTHY, detail=refusal)

    def _say_where_all_stands(self) -> None:
        healthy = all(s.phase in {ServicePhase.HEALTHY, ServicePhase.DONE} for s in self.state.services.values())
        phase, now = Phase.RUNNING if healthy else Phase.DEGRADED, time.time()
        if self.state.phase is not phase or now - (self.state.watched_at or 0) >= PROBE_EVERY_S:
            self.state.phase, self.state.watched_at = phase, now
            publish_state(self.state)

    def _change(self, name: str, phase: ServicePhase, *, detail: str | None = None, **facts: object) -> None:
        before = self.state.services.get(name) or ServiceState(name=name)
        known = {fact: value for fact, value in facts.items() if value is not None}
        self.state.services[name] = before.model_copy(update={"phase": phase, "detail": detail, **known})
        publish_state(self.state)
        with suppress(OSError):  # who listens writes, perhaps to a full disk, or to a terminal that is gone
            self._report(self.state.services[name])

    def _log_path(self, name: str) -> Path:
        return logs_dir(self.state.data_dir) / f"{name}.log"


def _check_order(specs: Sequence[Spec]) -> None:
    """Refuse a set that could never finish starting: it is a mistake of the programmer."""
    known: set[str] = set()
    for spec in specs:
        missing = set(spec.after) - known
        if missing or spec.name in known:
            raise ValueError(f"`{spec.name}` must be unique and come after {sorted(missing) or 'itself'} in the list")
        known.add(spec.name)
