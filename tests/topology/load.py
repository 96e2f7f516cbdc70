"""Asks for recommendations through the proxy at a steady pace, and keeps what each answer said."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.waiting import until

ASKERS = 3
PAUSE_S = 0.3
ENOUGH = 20
"""Answers from which what one death does to them can be told."""


@dataclass
class Load:
    """What became of the requests since the last `taken`; a status of 0 is a connection without an answer."""

    client: httpx.Client
    user_ids: Sequence[int]
    outcomes: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, user_id: int) -> dict[str, Any]:
        """Ask once and return the answer's body, with `status`."""
        try:
            answer = self.client.post("/v1/recommendations", json={"user_id": user_id, "limit": 5})
        except httpx.HTTPError as failure:
            return {"status": 0, "level": type(failure).__name__}
        body = answer.json() if "json" in answer.headers.get("content-type", "") else {"level": answer.text[:200]}
        return {**body, "status": answer.status_code}

    def taken(self, least: int = 0) -> dict[str, int]:
        """Return how often each `status level` came since the last time, once `least` have come, and begin anew."""
        until(lambda: sum(self.outcomes.values()) >= least)
        with self.lock:
            found, self.outcomes = dict(self.outcomes), Counter()
        return found

    def _go_on(self, first: int) -> None:
        number = first
        while not self.ended.wait(PAUSE_S):
            answer = self.ask(self.user_ids[number % len(self.user_ids)])
            number += ASKERS
            with self.lock:
                self.outcomes[f"{answer['status']} level {answer.get('level')}"] += 1


@contextmanager
def steady(client: httpx.Client, user_ids: Sequence[int]) -> Iterator[Load]:
    """Ask from a few threads for the length of the block."""
    load = Load(client, user_ids)
    askers = [threading.Thread(target=load._go_on, args=(number,)) for number in range(ASKERS)]
    for asker in askers:
        asker.start()
    try:
        yield load
    finally:
        load.ended.set()
        for asker in askers:
            asker.join(30)


def until_level(load: Load, level: int, within_s: float = 120.0) -> float:
    """Wait until several answers in a row have this level; return the seconds that took, raises AssertionError."""
    began, good, last = time.monotonic(), 0, {}
    while good < 5:
        last = load.ask(load.user_ids[good])
        good = good + 1 if (last["status"], last.get("level")) == (200, level) else 0
        assert time.monotonic() - began < within_s, f"no answers of level {level} within {within_s:g} s: {last}"
        time.sleep(0.1)
    return round(time.monotonic() - began, 1)
