"""The background tasks of a serving process, watched: one that ends is logged, counted and begun again after a pause.

What a task has loaded keeps serving while it is away, so it may be begun again without limit. A `vital` task is one
that the process cannot do without: when it keeps ending, so does the process, and whoever started it starts another.
"""

import asyncio
import inspect
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from infra.clock import Clock
from infra.metrics import ServingMetrics

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 30.0
"""How long a task must run after it was begun again until what happened before counts no more."""
MOST_ENDS: Final = 5
"""How often in a row a vital task may end before the process does."""
LAST_S: Final = 5.0
"""Of a stopping process, the longest time for each thing to end or to close."""
Run = Callable[[], Coroutine[Any, Any, None]]
TaskState = Literal["running", "failing", "done"]
_log = structlog.get_logger(__name__)


@dataclass
class _Watched:
    run: Run
    once: bool
    vital: bool
    began_s: float
    ends: int = 0
    paused: bool = False
    done: bool = False


class BackgroundTasks:
    """Runs tasks until `stop`; `end_process` is called when a vital one cannot be kept alive."""

    def __init__(self, clock: Clock, metrics: ServingMetrics, end_process: Callable[[], None]) -> None:
        self._clock = clock
        self._metrics = metrics
        self._end_process = end_process
        self._watched: dict[str, _Watched] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def start(self, name: str, run: Run, *, once: bool = False, vital: bool = False) -> None:
        """Run a task for ever, or until it returns where it has to be done but `once`."""
        watched = self._watched[name] = _Watched(run, once, vital, self._clock.monotonic())
        self._metrics.task_ends.labels(name)  # the series is there before anything ends
        self._tasks[name] = asyncio.create_task(self._watch(name, watched), name=name)

    def report(self) -> dict[str, TaskState]:
        """Return how each task is doing: `failing` from its end until it has run for a while again."""
        return {name: self._state(watched) for name, watched in self._watched.items()}

    def problems(self) -> list[str]:
        """Return a sentence for each task that fails."""
        return [
            f"The background task `{name}` keeps ending; it is begun again and again: see `task_ended` in the log."
            for name, state in self.report().items()
            if state == "failing"
        ]

    async def stop(self, finishing: Collection[str] = ()) -> None:
        """End every task; those named `finishing` were told to end and get a while to do so themselves."""
        self._stopping = True
        for name, task in self._tasks.items():
            if name not in finishing:
                task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=LAST_S)
            for task in late:
                _log.warning("task_not_ended", task=task.get_name(), seconds=LAST_S)
                task.cancel()

    def _state(self, watched: _Watched) -> TaskState:
        if watched.done:
            return "done"
        steady = not watched.paused and self._clock.monotonic() - watched.began_s >= STEADY_S
        return "running" if steady or not watched.ends else "failing"

    async def _watch(self, name: str, watched: _Watched) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            watched.began_s, watched.paused = self._clock.monotonic(), False
            ended_by: BaseException | None = None
            try:
                await watched.run()
            except asyncio.CancelledError as error:
                if self._cancelled():
                    raise
                ended_by = error  # something that it waited for was cancelled: nobody meant the task
            except Exception as error:  # noqa: BLE001 whatever it was: the task must not stay dead
                ended_by = error
            if self._stopping or (ended_by is None and watched.once):
                watched.done = True
                return
            if self._clock.monotonic() - watched.began_s >= STEADY_S:
                watched.ends, pause_s = 0, FIRST_PAUSE_S
            watched.ends, watched.paused = watched.ends + 1, True
            self._metrics.task_ends.labels(name).inc()
            _log.error("task_ended", task=name, times=watched.ends, again_in_s=pause_s, exc_info=ended_by)
            if watched.vital and watched.ends >= MOST_ENDS:
                _log.critical("process_ends", task=name, why="A task that the process cannot do without keeps ending.")
                self._end_process()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @staticmethod
    def _cancelled() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0


class Closing:
    """What has to be closed, the newest first: each of it, whatever happened to the others."""

    def __init__(self) -> None:
        self._closers: list[tuple[str, Callable[[], object]]] = []

    def add(self, name: str, close: Callable[[], object]) -> None:
        """Close something later, by a function or by a coroutine function."""
        self._closers.append((name, close))

    async def close(self) -> None:
        """Close everything once; a failure is logged, and a cancellation is raised when all is closed."""
        cancelled: asyncio.CancelledError | None = None
        while self._closers:
            name, close = self._closers.pop()
            try:
                async with asyncio.timeout(LAST_S):
                    closed = close()
                    if inspect.isawaitable(closed):
                        await closed
            except asyncio.CancelledError as error:
                cancelled = error
            except Exception as error:  # noqa: BLE001 the rest must be closed all the same
                _log.warning("not_closed", what=name, exc_info=error)
        if cancelled is not None:
            raise cancelled
