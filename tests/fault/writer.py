"""Somebody who writes people and blocks by all calls in turn, and remembers what was acknowledged."""

import threading
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import httpx


@dataclass
class Turn:
    """What one call about one person was to leave behind, or one interaction: and whether it was acknowledged."""

    number: int
    acknowledged: bool


class Writer:
    """Writes people and blocks by all calls in turn, from a thread of its own, and keeps what came back."""

    FIRST, MANY, EVENTS = 5001, 40, 250

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = self._opened()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.people: dict[int, list[Turn]] = {}
        self.events: dict[str, dict[str, Any]] = {}
        self.acknowledged: set[str] = set()
        self.rounds: list[set[int]] = []

    def __enter__(self) -> Self:
        assert self._store_people(0) == {200}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the writer does not end"
        self._client.close()

    def since(self, n_rounds: int, status: int) -> bool:
        """Say whether a call of a round after so many was answered so."""
        return any(status in statuses for statuses in self.rounds[n_rounds:])

    def send_again(self) -> set[str]:
        """Send every interaction again, and return the statuses."""
        events = list(self.events.values())
        self._client = self._opened()
        with self._client:
            return self._statuses(events)

    def _opened(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, trust_env=False, timeout=30)

    def _statuses(self, events: list[dict[str, Any]]) -> set[str]:
        return {
            result["status"] for start in range(0, len(events), 1000) for result in self._send(events[start:][:1000])
        }

    def _run(self) -> None:
        turn = 0
        while not self._end.is_set():
            turn += 1
            one, other = (self.FIRST + (turn + step) % self.MANY for step in (0, 1))
            statuses = {self._put(one, turn), self._patch(other, turn)} | self._store_people(turn)
            self.rounds.append(statuses | self._block(turn))

    @staticmethod
    def profile(turn: int) -> dict[str, Any]:
        """Return columns that all tell the same turn, of people far away from everybody."""
        tells = {"bio": f"turn {turn}", "interests": [f"turn-{turn}"], "attributes": {"turn": turn}}
        return {**tells, "latitude": -60.0, "longitude": 0.0, "max_distance_km": 1.0}

    def _put(self, user_id: int, turn: int) -> int:
        status = self._client.put(f"/v1/people/{user_id}", json=self.profile(turn)).status_code
        self.people.setdefault(user_id, []).append(Turn(turn, status in {200, 201}))
        return status

    def _patch(self, user_id: int, turn: int) -> int:
        status = self._client.patch(f"/v1/people/{user_id}", json=self.profile(turn)).status_code
        self.people.setdefault(user_id, []).append(Turn(turn, status == 200))
        return status

    def _store_people(self, turn: int) -> set[int]:
        ids = range(self.FIRST, self.FIRST + self.MANY)
        answer = self._client.post(
            "/v1/people:batch", json={"people": [{"user_id": user_id, **self.profile(turn)} for user_id in ids]}
        )
        results = answer.json()["results"] if answer.status_code == 200 else [{"status": "failed"}] * len(ids)
        for user_id, result in zip(ids, results, strict=True):
            acknowledged = result["status"] in {"created", "updated", "unchanged"}
            self.people.setdefault(user_id, []).append(Turn(turn, acknowledged))
        return {answer.status_code}

    def _block(self, turn: int) -> set[int]:
        pairs = [(turn * self.EVENTS + place) % (self.MANY * (self.MANY - 1)) for place in range(self.EVENTS)]
        events = [
            {
                "event_id": str(uuid4()),
                "actor_id": self.FIRST + pair // (self.MANY - 1),
                "target_id": self.FIRST + (pair // (self.MANY - 1) + 1 + pair % (self.MANY - 1)) % self.MANY,
                "kind": "block",
            }
            for pair in pairs
        ]
        self.events |= {event["event_id"]: event for event in events}
        results = self._send(events)
        done = {result["event_id"] for result in results if result["status"] in {"stored", "known"}}
        self.acknowledged |= done
        return {200 if len(done) == len(events) else 503}

    def _send(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answer = self._client.post("/v1/interactions:batch", json={"interactions": events})
        assert answer.status_code in {200, 503}, answer.text
        return list(answer.json()["results"]) if answer.status_code == 200 else []
