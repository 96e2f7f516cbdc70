"""A day of an app in small: lists, decisions, people who come, change and go, by calls and by streams."""

import json
import random
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import redis

CLIENTS = 3
PAUSE_S = 0.55
WEIGHTS = {
    "recommend": 48, "decide": 22, "decide by stream": 12, "matches": 6, "similar": 4, "change a person": 3,
    "change a person by stream": 2, "a new person": 1, "a batch of lists": 1, "a batch of decisions": 1, "erase": 0.3,
}  # fmt: skip
NEW = 1_000_000
"""The first id of people who come during the soak."""


class Mix:
    """Several clients of one app, and what they were answered by call and status; 0 is no answer."""

    def __init__(self, client: httpx.Client, streams: redis.Redis, user_ids: Sequence[int]) -> None:
        self._client, self._streams, self._user_ids = client, streams, user_ids
        self._shown: deque[tuple[int, int, str]] = deque(maxlen=1000)
        self._came: deque[int] = deque()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._count = 0
        self.answers: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let the clients call for the length of the block."""
        threads = [threading.Thread(target=self._go_on, args=(random.Random(seed),)) for seed in range(CLIENTS)]  # noqa: S311
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(60)

    def _go_on(self, chance: random.Random) -> None:
        calls: dict[str, Callable[[str, random.Random], None]] = {
            "recommend": self._recommend,
            "decide": self._decide,
            "decide by stream": self._decide_by_stream,
            "matches": self._matches,
            "similar": self._similar,
            "change a person": self._change,
            "change a person by stream": self._change_by_stream,
            "a new person": self._come,
            "a batch of lists": self._recommend_many,
            "a batch of decisions": self._decide_many,
            "erase": self._erase,
        }
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not self._ended.wait(PAUSE_S):
            name = chance.choices(names, weights)[0]
            try:
                calls[name](name, chance)
            except redis.RedisError as failure:
                self._note(name, f"0 {type(failure).__name__}")

    def _note(self, name: str, status: str) -> None:
        with self._lock:
            self.answers[name, status] += 1

    def _call(self, name: str, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as failure:
            self._note(name, f"0 {type(failure).__name__}")
            return None
        told = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        more = f" level {told['level']}" if "level" in told else ""
        code = f" {told['error']['code']}" if "error" in told else ""
        self._note(name, f"{answer.status_code}{more}{code}")
        return told if answer.is_success else None

    def _recommend(self, name: str, chance: random.Random) -> None:
        asker = chance.choice(self._user_ids)
        told = self._call(name, "POST", "/v1/recommendations", {"user_id": asker, "limit": 10})
        if told:
            self._shown.extend((asker, item["user_id"], told["request_id"]) for item in told["items"][:3])

    def _decision(self, chance: random.Random) -> dict[str, Any] | None:
        with self._lock:
            if not self._shown:
                return None
            actor, target, request_id = self._shown.popleft()
        kind = "like" if chance.random() < 0.3 else "pass"
        who = {"actor_id": actor, "target_id": target}
        return {"event_id": str(uuid.uuid4()), **who, "kind": kind, "request_id": request_id}

    def _decide(self, name: str, chance: random.Random) -> None:
        if (decision := self._decision(chance)) is not None:
            self._call(name, "POST", "/v1/interactions", decision)

    def _decide_many(self, name: str, chance: random.Random) -> None:
        if decisions := [decision for _ in range(20) if (decision := self._decision(chance)) is not None]:
            self._call(name, "POST", "/v1/interactions:batch", {"interactions": decisions})

    def _decide_by_stream(self, name: str, chance: random.Random) -> None:
        if (decision := self._decision(chance)) is not None:
            self._add(name, "duet:interactions", decision)

    def _add(self, name: str, stream: str, row: dict[str, Any]) -> None:
        self._streams.xadd(stream, {"json": json.dumps(row)}, maxlen=10_000)
        self._note(name, "added")

    def _matches(self, name: str, chance: random.Random) -> None:
        self._call(name, "GET", f"/v1/people/{chance.choice(self._user_ids)}/matches")

    def _similar(self, name: str, chance: random.Random) -> None:
        person, asker = chance.sample(self._user_ids, 2)
        self._call(name, "GET", f"/v1/people/{person}/similar?requester_id={asker}")

    def _change(self, name: str, chance: random.Random) -> None:
        wish = {"max_distance_km": float(chance.randint(20, 200))}
        self._call(name, "PATCH", f"/v1/people/{chance.choice(self._user_ids)}", wish)

    def _change_by_stream(self, name: str, chance: random.Random) -> None:
        self._add(name, "duet:people", {"user_id": chance.choice(self._user_ids), "interests": ["chess", "hiking"]})

    def _come(self, name: str, chance: random.Random) -> None:
        with self._lock:
            self._count += 1
            user_id = NEW + self._count
        about = {"birth_date": f"{chance.randint(1970, 2000)}-05-17", "gender": chance.choice(["woman", "man"])}
        if self._call(name, "PUT", f"/v1/people/{user_id}", about):
            self._call("recommend", "POST", "/v1/recommendations", {"user_id": user_id, "limit": 10})
            self._came.append(user_id)

    def _erase(self, name: str, _: random.Random) -> None:
        if self._came:
            self._call(name, "DELETE", f"/v1/people/{self._came.popleft()}")

    def _recommend_many(self, name: str, chance: random.Random) -> None:
        asked = {"user_ids": chance.sample(self._user_ids, 20), "limit": 5}
        self._call(name, "POST", "/v1/recommendations:batch", asked)
