"""Ask many servers at once and collect the answers later: one that hangs delays nobody else's question."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from infra.supervisor.errors import in_words
from infra.supervisor.spec import Probe

AT_ONCE = 32

Kind = Literal["ready", "alive"]


@dataclass(frozen=True)
class HealthQuestion:
    """What was asked of whom; `generation` tells answers of an earlier process of that name."""

    name: str
    kind: Kind
    generation: int


class Asker:
    """Asks each question at most once at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe")
        self._asked: dict[HealthQuestion, Future[str | None]] = {}
        self._at: dict[HealthQuestion, float] = {}

    def ask(self, questions: Mapping[HealthQuestion, tuple[Probe, float]]) -> None:
        """Ask those that were not asked within their number of seconds and are not being asked; forget all others."""
        now = time.monotonic()
        for question, (probe, every_s) in questions.items():
            if question not in self._asked and now - self._at.get(question, -every_s) >= every_s:
                self._at[question] = now
                self._asked[question] = self._pool.submit(probe.check)
        self._at = {question: at for question, at in self._at.items() if question in questions}

    def answers(self) -> Iterator[tuple[HealthQuestion, str | None]]:
        """Give each answer once; None means well."""
        for question, answer in list(self._asked.items()):
            if answer.done():
                del self._asked[question]
                failure = answer.exception()
                # No probe is to raise; one that does, for want of a file or of memory, must not end the watching.
                if isinstance(failure, Exception):
                    yield question, f"it cannot be asked: {in_words(failure)}"
                else:
                    yield question, answer.result()

    def close(self) -> None:
        """Ask nothing more; questions under way end by their own limits."""
        self._pool.shutdown(wait=False, cancel_futures=True)
