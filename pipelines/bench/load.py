"""Drive the service from a process of its own: `python -m pipelines.bench.load` reads a job and prints what it saw.

A closed loop keeps so many requests under way and says what the service can do. An open loop sends at fixed instants
whatever the service does, and counts each answer from the instant at which it should have been asked for: a stall is
felt by everybody who would have come during it. Every answer is checked.
"""

import asyncio
import gc
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.bench.http_client import Connection, connect, post

PATH = "/v1/recommendations"
_MAX_CONNECTIONS = 512
_LAST_ANSWERS_S = 5.0


@dataclass(frozen=True)
class Job:
    """What to do: a closed loop of `concurrency`, or an open one of phases (rate per second, seconds).

    People are asked for in order, over and over. What is sent during the warm-up does not count.
    """

    host: str
    port: int
    user_ids: list[int]
    seconds: float = 0.0
    concurrency: int = 1
    phases: list[tuple[float, float]] | None = None
    limit: int = 20
    warmup_s: float = 0.0


@dataclass(frozen=True)
class TimedAnswer:
    """When the last byte came (monotonic seconds), the status (0 when the connection broke) and the body."""

    done_s: float
    status: int
    body: bytes


@dataclass
class Seen:
    """What came back, one entry per request that counts; times are monotonic seconds of this machine.

    `latency_ms` runs from the sending, in an open loop from the instant the request was due. `good` says whether the
    answer was what it should be, `problems` what else came, `short` who got fewer people than asked for.
    """

    began_s: float = 0.0
    ended_s: float = 0.0
    due_s: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    short: list[int] = field(default_factory=list)
    cached: int = 0
    release_since_s: dict[str, float] = field(default_factory=dict)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    client_cpu_s: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Seen":
        """Read what a load process printed."""
        found = json.loads(text)
        for name in ("statuses", "problems"):
            found[name] = Counter(found[name])
        return cls(**found)

    def note(self, due_s: float, answer: TimedAnswer, user_id: int, limit: int) -> None:
        """Check one answer and keep it."""
        self.due_s.append(due_s)
        self.latency_ms.append((answer.done_s - due_s) * 1e3)
        self.statuses[str(answer.status)] += 1
        problem = self._problem(answer.status, answer.body, user_id, limit)
        self.good.append(problem is None)
        if problem is not None:
            self.problems[problem] += 1

    def _problem(self, status: int, body: bytes, user_id: int, limit: int) -> str | None:
        if status != 200:
            return f"status {status}" if status else "connection broken"
        answer = json.loads(body)
        shown = [item["user_id"] for item in answer["items"]]
        if answer["level"] != 1:
            return f"level {answer['level']}: {answer['reason']}"
        if len(set(shown)) != len(shown):
            return "somebody twice"
        if user_id in shown:
            return "the requester among the people"
        if len(shown) > limit:
            return "more people than asked for"
        if len(shown) < limit:
            self.short.append(user_id)
        for stage, milliseconds in answer["timings_ms"].items():
            self.stages_ms.setdefault(stage, []).append(milliseconds)
        self.cached += bool(answer.get("cached", False))
        self.release_since_s.setdefault(str(answer["release"]), time.monotonic())
        return None


class _Load:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._next = 0
        self._seen = Seen()
        self._measuring_from = 0.0
        self._free: list[Connection] = []
        self._all: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._under_way = 0
        self._opened = 0

    async def run(self) -> Seen:
        job = self._job
        highest = max((rate for rate, _ in job.phases or ()), default=0.0)
        n_first = job.concurrency if job.phases is None else min(_MAX_CONNECTIONS, max(32, int(highest / 4)))
        self._free = [await self._connect() for _ in range(n_first)]
        self._opened = n_first
        # What the driver itself keeps must not be walked again and again while it measures.
        gc.collect()
        gc.freeze()
        gc.disable()
        began = time.monotonic()
        self._measuring_from = began + job.warmup_s
        seconds = job.seconds if job.phases is None else sum(seconds for _, seconds in job.phases)
        until = self._measuring_from + seconds
        cpu = time.process_time()
        self._seen.began_s = self._measuring_from
        if job.phases is None:
            await self._closed(until)
        else:
            await self._open(began, job.phases)
        self._seen.ended_s = until
        share = seconds / (seconds + job.warmup_s)
        self._seen.client_cpu_s = (time.process_time() - cpu) * share
        for connection in self._all:
            connection.close()
        await asyncio.sleep(0)  # a closed transport says goodbye in the next turn of the loop
        return self._seen

    async def _closed(self, until: float) -> None:
        finished = asyncio.get_running_loop().create_future()
        alive = len(self._free)

        def ask(connection: Connection) -> None:
            nonlocal alive
            now = time.monotonic()
            if now >= until:
                alive -= 1
                if not alive and not finished.done():
                    finished.set_result(None)
                return
            user_id, request = self._request()

            def done(status: int, body: bytes, at: float) -> None:
                self._note(now, TimedAnswer(at, status, body), user_id)
                if status:
                    ask(connection)
                else:
                    again = asyncio.ensure_future(reopen())
                    again.add_done_callback(lambda task: task.exception())

            connection.send(request, done)

        async def reopen() -> None:
            nonlocal alive
            try:
                ask(await self._connect())
            except OSError:
                self._seen.problems["connection refused"] += 1
                alive -= 1
                if not alive and not finished.done():
                    finished.set_result(None)

        for connection in self._free:
            ask(connection)
        await finished

    async def _open(self, began: float, phases: list[tuple[float, float]]) -> None:
        for due in arrivals(began, [(phases[0][0], self._job.warmup_s), *phases]):
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self._arrive(due)
        last = time.monotonic() + _LAST_ANSWERS_S
        while (self._under_way or self._waiting) and time.monotonic() < last:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)
        for due in self._waiting:
            self._note(due, TimedAnswer(time.monotonic(), 0, b""), 0)
        if self._under_way:
            self._seen.problems["no answer"] += self._under_way

    def _arrive(self, due: float) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                self._ask(connection, due)
                return
            self._opened -= 1
        self._waiting.append(due)
        if self._opened < _MAX_CONNECTIONS:
            self._opened += 1
            task = asyncio.ensure_future(self._widen())
            task.add_done_callback(lambda done: done.exception())

    async def _widen(self) -> None:
        try:
            connection = await self._connect()
        except OSError:
            self._opened -= 1
            if self._waiting:
                self._note(self._waiting.popleft(), TimedAnswer(time.monotonic(), 0, b""), 0)
            return
        self._give_back(connection)

    async def _connect(self) -> Connection:
        connection = await connect(self._job.host, self._job.port)
        self._all.append(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _ask(self, connection: Connection, due: float) -> None:
        user_id, request = self._request()
        self._under_way += 1

        def done(status: int, body: bytes, at: float) -> None:
            self._under_way -= 1
            self._note(due, TimedAnswer(at, status, body), user_id)
            if connection.is_open:
                self._give_back(connection)
            else:
                self._opened -= 1

        connection.send(request, done)

    def _request(self) -> tuple[int, bytes]:
        job = self._job
        user_id = job.user_ids[self._next % len(job.user_ids)]
        self._next += 1
        return user_id, post(job.host, job.port, PATH, {"user_id": user_id, "limit": job.limit})

    def _note(self, due: float, answer: TimedAnswer, user_id: int) -> None:
        if due >= self._measuring_from:
            self._seen.note(due, answer, user_id, self._job.limit)


def arrivals(began_s: float, phases: Sequence[tuple[float, float]]) -> Iterator[float]:
    """Yield the instants at which requests are due: phases of (rate per second, seconds), one after the other."""
    for per_second, seconds in phases:
        for number in range(round(per_second * seconds)):
            yield began_s + number / per_second
        began_s += seconds


def drive(job: Job) -> Seen:
    """Run a job in this process."""
    return asyncio.run(_Load(job).run())


def main() -> None:
    """Read a job as JSON from standard input, run it, print what was seen as JSON."""
    job: dict[str, Any] = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(vars(drive(Job(**job)))))


if __name__ == "__main__":
    main()
