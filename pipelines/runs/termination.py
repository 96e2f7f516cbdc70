"""Lets a run that was started from the shell end when it is terminated in Dagster's UI.

Dagster sends a termination to the code server that works on a run. A run of the command line has none, so its process
looks at its own run: a thread every second, the run itself after each step. What ends a step is the interrupt of
Ctrl-C, which Dagster handles: it comes between two lines of Python, so also between two trees or two iterations.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Final, cast

from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus

LOOK_S: Final = 1.0
AGAIN_S: Final = 15.0
"""An interrupt that came up in a finalizer is lost, so it is sent again."""
_ENDING: Final = frozenset({DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED})
_log = logging.getLogger(__name__)


class Termination:
    """Looks whether somebody wants a run to end, and interrupts the main thread of this process if so."""

    def __init__(self, instance: DagsterInstance, run_id: str, look_s: float = LOOK_S) -> None:
        self._instance = instance
        self._run_id = run_id
        self._look_s = look_s
        self._ended = threading.Event()
        self._sending = threading.Lock()

    def wanted(self) -> bool:
        """Say whether the run is to end, or was already written down as ended."""
        run = self._instance.get_run_by_id(self._run_id)
        return run is not None and run.status in _ENDING

    @staticmethod
    def interrupt() -> None:
        """Send the main thread the interrupt of Ctrl-C."""
        signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGINT)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for the length of the block; only where it runs in the main thread can a step be interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        thread = threading.Thread(target=self._watch, name="run-termination", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._sending:  # no interrupt is sent from here on
                self._ended.set()
            thread.join()

    def _watch(self) -> None:
        pause_s = self._look_s
        while not self._ended.wait(pause_s):
            try:
                wanted = self.wanted()
            except Exception as error:  # noqa: BLE001 whatever the database raises: the next look may answer
                _log.warning("the run's status cannot be read: %s", type(error).__name__)
                continue
            with self._sending:
                if wanted and not self._ended.is_set():
                    pause_s = AGAIN_S
                    self.interrupt()


def until_terminated(
    events: Iterator[DagsterEvent], termination: Termination, tell: Callable[[DagsterEvent], None]
) -> None:
    """Tell every event of a run; end it after the step that ended while the run was terminated."""
    with termination.watched():
        try:
            _tell_until(events, termination, tell)
        except KeyboardInterrupt:
            if not termination.wanted():
                raise  # it came from the keyboard


def _tell_until(events: Iterator[DagsterEvent], termination: Termination, tell: Callable[[DagsterEvent], None]) -> None:
    stopping = False
    for event in events:
        tell(event)
        if event.is_step_success and termination.wanted():
            stopping = True
            termination.interrupt()  # Dagster keeps it for the beginning of the next step
        elif stopping and event.is_engine_event and event.step_key is None:
            # That was the last step, and the next event would be the run's success.
            tell(cast("Generator[DagsterEvent, None, None]", events).throw(KeyboardInterrupt()))
