"""Measure one size: start-up, memory, latency, throughput, cache, overload, a swap, and the naive composition."""

import json
import math
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from infra.cli.console import err, print_note
from infra.clock import Clock
from infra.endpoints import Endpoints, open_endpoints
from pipelines.bench.askers import shuffled_askers, wrongly_short
from pipelines.bench.errors import ProcessFailed
from pipelines.bench.figures import goodput, rate, recovery_s, spread
from pipelines.bench.load import Job, Seen
from pipelines.bench.naive import NaiveJob
from pipelines.bench.service import HOST, ServiceProcess, run_service
from pipelines.bench.steps import Steps
from pipelines.bench.swap import prepare_releases, put_into_production, swap_figures
from pipelines.bench.verdicts import split
from pipelines.bench.world import BenchWorld
from registry.contracts import ReleaseVersions

UNCACHED: Final = {"DUET_SERVING__CACHE__ENABLED": "false"}
CACHED: Final = {"DUET_SERVING__CACHE__ENABLED": "true"}
_POLLING: Final = {"DUET_SERVING__RELEASE_POLL_S": "1"}
AUTO_RATE: Final = 0.6
SWAP_RATE: Final = 0.3
OVERLOAD: Final = 3.0
CALM: Final = 0.5
CALM_S: Final = 6.0
CALM_P99_MS: Final = 100.0
WARMUP_S: Final = 1.5
N_CACHED: Final = 100
_SWAP_AT_S: Final = 5.0
_SWAP_WITHIN_S: Final = 60.0
_LAST_ENDS_S: Final = 60.0
_SETTLE_S: Final = 4.0


@dataclass(frozen=True)
class Options:
    """How long and how hard; `rate` None is AUTO_RATE of what the service can do."""

    seconds: float = 10.0
    concurrency: tuple[int, ...] = (1, 16)
    rate: float | None = None
    repeat: int = 3
    workers: int = 1
    limit: int = 20
    naive: bool = True
    overload: bool = True
    swap: bool = True
    seed: int = 3


@dataclass
class ServingMeasurement:
    """Takes the figures of one world; `figures` is what goes into the JSON, `wrong` what must not have happened."""

    world: BenchWorld
    endpoints: Endpoints
    options: Options
    clock: Clock
    figures: dict[str, Any] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    short: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._askers = shuffled_askers(self.world, self.options.seed)
        self._asked = 0

    def run(self) -> None:
        """Take every figure that the options ask for."""
        facts = self.world.facts
        self.figures |= {
            "people": self.world.spec.people,
            "interactions": facts["interactions"],
            "world": {name: facts.get(name) for name in ("total_s", "steps_s", "index", "ranker", "until")},
        }
        shutil.rmtree(self.world.settings.data_dir / "snapshot", ignore_errors=True)
        with self._service(UNCACHED, "cold start, without snapshot files") as service:
            self.figures["cold_start"] = {"ready_s": service.ready_s, "full_s": service.full_s}
        with self._service(UNCACHED, "warm start") as service:
            self.figures["warm_start"] = {"ready_s": service.ready_s, "full_s": service.full_s}
            self._uncached(service)
        with self._service(CACHED, "start for cached answers") as service:
            self._cached(service)
        if self.options.swap:
            self._swap()
        if self.options.naive:
            self._naive()
        self._check_short()

    @property
    def best_rate(self) -> float:
        """Return the most answers per second that any closed loop got."""
        return max(float(run["per_s"]) for run in self.figures["uncached"])

    def _uncached(self, service: ServiceProcess) -> None:
        options = self.options
        self.figures["uncached"] = [self._closed(service, c, self._next_askers()) for c in options.concurrency]
        self.figures["open_loop"] = self._open(service)
        if options.overload:
            self.figures["overload"] = self._overload(service)
        self.figures["memory"] = [asdict(memory) for memory in service.workers()]

    def _cached(self, service: ServiceProcess) -> None:
        some = self._next_askers()[:N_CACHED]
        fill = Job(HOST, service.port, some, seconds=4.0, concurrency=4, limit=self.options.limit)
        self._load(service, fill)
        self.figures["cached"] = [self._closed(service, c, some) for c in self.options.concurrency]

    def _closed(self, service: ServiceProcess, concurrency: int, askers: list[int]) -> dict[str, Any]:
        """Repeat a closed loop; return the medians of the repetitions, and the stages of all of them."""
        options = self.options
        runs: list[dict[str, Any]] = []
        stages: dict[str, list[float]] = {}
        n_cached = 0
        for number in range(options.repeat):
            self._say(f"concurrency {concurrency}, run {number + 1} of {options.repeat}")
            job = Job(
                HOST, service.port, askers[len(runs) * 997 % len(askers) :] + askers, seconds=options.seconds,
                concurrency=concurrency, limit=options.limit, warmup_s=WARMUP_S,
            )  # fmt: skip
            seen, figures = self._load(service, job)
            self._keep_wrong(seen, seeks_the_limit=concurrency > 1, what=f"{concurrency} at once")
            n_cached += seen.cached
            for stage, values in seen.stages_ms.items():
                stages.setdefault(stage, []).extend(values)
            per_second = rate(sum(seen.good), seen.ended_s - seen.began_s)
            runs.append({**asdict(spread(seen.latency_ms)), "per_s": per_second, **figures})
        middle = {
            name: round(float(np.median([run[name] for run in runs])), 3)
            for name in ("p50", "p95", "p99", "per_s", "cpu_ms", "service_cpu_ms", "postgres_cpu_ms", "client_cpu_ms")
        }
        return {
            "concurrency": concurrency,
            **middle,
            "longest": max(run["longest"] for run in runs),
            "n": sum(run["n"] for run in runs),
            "cached_share": round(n_cached / max(1, sum(run["n"] for run in runs)), 4),
            "stages_ms": {stage: asdict(spread(values)) for stage, values in stages.items()},
            "runs": runs,
        }

    def _open(self, service: ServiceProcess) -> dict[str, Any]:
        """Offer a rate that the service must bear: being refused or late is wrong here."""
        options = self.options
        per_second = options.rate or max(1.0, AUTO_RATE * self.best_rate)
        self._say(f"open loop at {per_second:.0f}/s")
        seen, figures = self._load(service, Job(
            HOST, service.port, self._next_askers(), phases=[(per_second, options.seconds)], limit=options.limit,
            warmup_s=WARMUP_S,
        ))  # fmt: skip
        self._keep_wrong(seen)
        return {"rate": round(per_second, 1), **asdict(spread(seen.latency_ms)), **figures}

    def _overload(self, service: ServiceProcess) -> dict[str, Any]:
        sustainable, seconds = self.best_rate, self.options.seconds
        self._say(f"overload: {OVERLOAD * sustainable:.0f}/s for {seconds:.0f} s, then {CALM * sustainable:.0f}/s")
        phases = [(OVERLOAD * sustainable, seconds), (CALM * sustainable, CALM_S)]
        seen, _ = self._load(service, Job(
            HOST, service.port, self._next_askers(), phases=phases, limit=self.options.limit, warmup_s=0.0
        ))  # fmt: skip
        over_s = seen.began_s + seconds
        loaded = np.asarray(seen.due_s) < over_s
        within = float(service.settings.serving.deadline_ms)
        good = goodput(np.asarray(seen.latency_ms)[loaded], np.asarray(seen.good)[loaded].tolist(), seconds, within)
        for problem, n in split(seen.problems, seeks_the_limit=True)[0].items():
            self.wrong[problem] = self.wrong.get(problem, 0) + n
        recovered_s = recovery_s(seen.due_s, seen.latency_ms, seen.good, over_s, CALM_P99_MS)
        fast = np.asarray(seen.latency_ms)[loaded & np.asarray(seen.good, dtype=np.bool_)]
        return {
            "offered_per_s": round(OVERLOAD * sustainable, 1),
            "goodput_per_s": good,
            "goodput_share": round(good / sustainable, 3),
            "p99_of_good_ms": spread(fast).p99 if len(fast) else None,
            "recovery_s": recovered_s if math.isfinite(recovered_s) else None,
            "statuses": dict(seen.statuses),
            "problems": dict(seen.problems),
        }

    def _swap(self) -> None:
        # Only here is there an MLflow server: it takes memory and polls its database.
        with open_endpoints(self.world.settings, mlflow=True) as endpoints:
            first, second = prepare_releases(self.world, endpoints, Steps(self.clock))
            put_into_production(self.world, endpoints, first)
            with self._service({**UNCACHED, **_POLLING}, "start for a swap", endpoints) as service:
                # A swap meets a service that runs: one that has just started is slow for other reasons.
                some = self._next_askers()
                self._load(service, Job(
                    HOST, service.port, some, seconds=_SETTLE_S, concurrency=4, limit=self.options.limit
                ))  # fmt: skip
                per_second = max(10.0, SWAP_RATE * self.best_rate)
                self._say(f"release swap at {per_second:.0f}/s")
                lasts = min(_SWAP_WITHIN_S, _SWAP_AT_S + max(10.0, 2 * service.full_s))
                job = Job(
                    HOST, service.port, self._next_askers(), phases=[(per_second, lasts)], limit=self.options.limit,
                    warmup_s=WARMUP_S,
                )  # fmt: skip
                with ThreadPoolExecutor(1) as operator:
                    promoted = operator.submit(self._promote_later, endpoints, second)
                    seen, _ = self._load(service, job)
                    promoted_s = promoted.result()
            put_into_production(self.world, endpoints, first)
        self._keep_wrong(seen)
        figures = swap_figures(seen, promoted_s, seen.release_since_s.get(second.release_id))
        self.figures["swap"] = {"rate": round(per_second, 1), **asdict(figures)}

    def _promote_later(self, endpoints: Endpoints, versions: ReleaseVersions) -> float:
        """Promote in the midst of the load; return when that began."""
        time.sleep(_SWAP_AT_S + WARMUP_S)
        began_s = time.monotonic()
        put_into_production(self.world, endpoints, versions)
        return began_s

    def _naive(self) -> None:
        self._say("naive composition")
        settings = self.world.settings
        job = NaiveJob(
            str(settings.data_dir), self.endpoints.database_url, self.endpoints.redis_url, self._next_askers(),
            self.options.seconds, settings.serving.n_candidates, self.options.limit,
        )  # fmt: skip
        found = json.loads(_python("pipelines.bench.naive", asdict(job), self.options.seconds + 600))
        n = len(found["latency_ms"])
        self.figures["naive"] = {
            **asdict(spread(found["latency_ms"])),
            "per_s": rate(n, found["seconds"]),
            "cpu_ms": round(1e3 * found["cpu_s"] / n, 3),
            "resident_mb": round(found["resident_mb"], 1),
            "start_s": round(found["start_s"], 2),
            "stages_ms": {stage: asdict(spread(values)) for stage, values in found["stages_ms"].items()},
        }

    def _load(self, service: ServiceProcess, job: Job) -> tuple[Seen, dict[str, float]]:
        """Drive a job in a process of its own; return what it saw and the CPU milliseconds per answer."""
        before = service.cpu()
        began = self.clock.monotonic()
        lasts = job.seconds + sum(seconds for _, seconds in job.phases or ()) + job.warmup_s
        seen = Seen.parse(_python("pipelines.bench.load", asdict(job), lasts + _LAST_ENDS_S))
        used = service.cpu().since(before)
        measured = seen.ended_s - seen.began_s
        # The warm-up counts as load but not as answers: its share of the time is taken out.
        per_answer = 1e3 * measured / (measured + job.warmup_s) / max(1, len(seen.latency_ms))
        client_ms = 1e3 * seen.client_cpu_s / max(1, len(seen.latency_ms))
        figures = {
            "service_cpu_ms": round(per_answer * used.service, 3),
            "postgres_cpu_ms": round(per_answer * used.postgres, 3),
            "redis_cpu_ms": round(per_answer * used.redis, 3),
            "client_cpu_ms": round(client_ms, 3),
            "took_s": round(self.clock.monotonic() - began, 2),
        }
        figures["cpu_ms"] = round(sum(figures[f"{name}_cpu_ms"] for name in ("service", "postgres", "redis")), 3)
        return seen, figures

    def _service(self, environment: dict[str, str], what: str, endpoints: Endpoints | None = None) -> Any:
        self._say(what)
        return run_service(
            self.world.settings, endpoints or self.endpoints, self.clock, self._askers[0], workers=self.options.workers,
            environment=environment,
        )  # fmt: skip

    def _next_askers(self) -> list[int]:
        """Return everybody, beginning with those who were not asked for yet."""
        self._asked = (self._asked + 10_007) % len(self._askers)
        return (self._askers[self._asked :] + self._askers[: self._asked])[:200_000]

    def _keep_wrong(self, seen: Seen, *, seeks_the_limit: bool = False, what: str = "") -> None:
        self.short += seen.short
        wrong, explained = split(seen.problems, seeks_the_limit=seeks_the_limit)
        for problem, n in wrong.items():
            self.wrong[problem] = self.wrong.get(problem, 0) + n
        if explained:
            refused = self.figures.setdefault("refused", {})
            refused[what] = refused.get(what, 0) + sum(explained.values())
            listed = ", ".join(f"{n} x {problem}" for problem, n in sorted(explained.items()))
            print_note(f"more than the service could do here, {what}: {listed}")

    def _check_short(self) -> None:
        different = len(set(self.short))
        self.figures["short_answers"] = {"answers": len(self.short), "people": different}
        if different:
            print_note(f"{different} people got fewer than {self.options.limit}: checking how many there are for them")
            wrong = wrongly_short(self.world, self.endpoints, self.short, self.options.limit, self.clock)
            if wrong:
                self.wrong[f"fewer people than there are (such as for {wrong[0]})"] = len(wrong)
        self.figures["wrong"] = self.wrong

    def _say(self, what: str) -> None:
        err().print(f"[dim]{self.world.spec.people:>9,}[/] {what}")


def _python(module: str, job: dict[str, Any], timeout_s: float) -> str:
    """Run a module of ours with a job on its standard input and return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", module], input=json.dumps(job), capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ProcessFailed(f"`{module}` ended with exit code {done.returncode} and said: {last[0]}")
    return done.stdout
