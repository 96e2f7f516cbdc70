"""A crowd that uses the service without pause, from a thread of its own, and keeps every answer for judgement."""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from tests.waiting import PATIENCE_S, until

LONGEST_S: Final = 20.0
MOST: Final = 0.9
_PULSE_S: Final = 0.02


@dataclass(frozen=True)
class Answer:
    """One answer: when it was asked for (monotonic s), how long it took, status (0: the connection broke) and body.

    `stalled_s` is for how long the crowd itself got no time of the machine meanwhile.
    """

    user_id: int
    asked_s: float
    took_s: float
    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    stalled_s: float = 0.0

    @property
    def people(self) -> list[int]:
        return [item["user_id"] for item in self.body.get("items", [])]

    @property
    def level(self) -> int | None:
        level: int | None = self.body.get("level")
        return level

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.status == 200 and self.level == 1 and not self.body["degraded"]


@dataclass(frozen=True)
class Written:
    """One interaction that was sent, and what came back; `felt` says whether the next answer knew of it."""

    event_id: str
    actor: int
    target: int
    status: int
    felt: bool | None = None
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def is_acknowledged(self) -> bool:
        """Whether it is stored: 200 says so of one whose commit was made and not heard of, and that was tried again."""
        return self.status in {200, 201}

    @property
    def body(self) -> dict[str, Any]:
        """What was sent."""
        return {"event_id": self.event_id, "actor_id": self.actor, "target_id": self.target, "kind": "pass"}


class Connection:
    """One keep-alive connection that is made anew when it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Return status, body and headers; status 0 when no answer came."""
        try:
            async with asyncio.timeout(LONGEST_S):
                reader, writer = await self._connected()
                writer.write(request(path, body))
                status, headers, content = await read_reply(reader)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.close()
            return 0, {"error": repr(error)}, {}
        except BaseException:
            self.close()  # half a reply may be on its way: it must not be taken for the next one's
            raise
        if headers.get("connection") == "close":
            self.close()
        return status, json.loads(content), headers

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def request(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: duet\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


class Crowd:
    """Askers ask in turn, `pause_s` between an answer and the next question; a writer passes on people.

    With `every_s` an asker asks at that interval, or as soon as it is answered when that is later.

    A context manager: the crowd is there for the length of the block.
    """

    def __init__(
        self,
        port: int,
        people: Sequence[int],
        *,
        askers: int = 4,
        pause_s: float = 0.04,
        every_s: float = 0.0,
        limit: int = 50,
        writes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._port = port
        self._people = people
        self._askers = askers
        self._pause_s = pause_s
        self._every_s = every_s
        self._limit = limit
        self._writes = writes
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self._end = threading.Event()
        self._turn = 0
        self._stalls: deque[tuple[float, float]] = deque(maxlen=500)
        self.answers: list[Answer] = []
        self.written: list[Written] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(2 * LONGEST_S)
        assert not self._thread.is_alive(), "the crowd does not end"

    def since(self, asked_s: float) -> list[Answer]:
        """Return the answers to what was asked since then."""
        return [answer for answer in list(self.answers) if answer.asked_s >= asked_s]

    def wait(self, wanted: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        """Wait until `wanted`; fails when it is not within the time, naming `what`."""

        def last() -> str:
            said = [(a.status, a.level, a.body.get("reason"), a.body.get("degraded")) for a in self.answers[-5:]]
            return f"{what}; the last answers were {said}"

        def reached() -> bool:
            assert self._thread.is_alive(), "the crowd is gone"
            return wanted()

        until(reached, within_s, last)

    def watch(self, seconds: float, *, at_least: int = 20) -> list[Answer]:
        """Return what is asked from now on for so long, and until there are some answers."""
        began = time.monotonic()
        self.wait(
            lambda: time.monotonic() - began >= seconds and len(self.since(began)) >= at_least, f"{at_least} answers"
        )
        return self.since(began)

    def settled(self, good: Callable[[Answer], bool], what: str, *, n: int = 20, share: float = MOST) -> list[Answer]:
        """Wait until, of `n` in a row that are asked from now on, such a share is good; return those and all after."""
        began = time.monotonic()

        def most() -> bool:
            last = self.since(began)[-n:]
            return len(last) == n and sum(map(good, last)) >= share * n

        self.wait(most, what)
        return self.since(began)[-n:]

    def until_whole(self, within_s: float = PATIENCE_S, in_a_row: int = 15) -> float:
        """Wait until answers are whole again, so many in a row, and writes are acknowledged.

        Return how long it took until the first whole answer.
        """
        began, n_written = time.monotonic(), len(self.written)

        def whole() -> bool:
            last = self.since(began)[-in_a_row:]
            return len(last) == in_a_row and all(answer.whole for answer in last)

        def acknowledged() -> bool:
            return not self._writes or any(written.is_acknowledged for written in self.written[n_written:])

        self.wait(lambda: whole() and acknowledged(), "whole answers and a write", within_s)
        broken = [answer.asked_s for answer in self.since(began) if not answer.whole]
        return max(broken, default=began) - began

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        askers = [self._ask_on() for _ in range(self._askers)]
        await asyncio.gather(*askers, self._feel_the_pulse(), *([self._write_on()] if self._writes else []))

    async def _feel_the_pulse(self) -> None:
        """Note by how much a short sleep is too long: neither the service nor a fault has a part in that."""
        while not self._end.is_set():
            began = time.monotonic()
            await asyncio.sleep(_PULSE_S)
            now = time.monotonic()
            self._stalls.append((now, now - began - _PULSE_S))

    def _kept(self, answer: Answer) -> Answer:
        stalled = max((late for at, late in self._stalls if at >= answer.asked_s), default=0.0)
        answer = replace(answer, stalled_s=stalled)
        self.answers.append(answer)
        return answer

    async def _ask_on(self) -> None:
        connection = Connection(self._port)
        while not self._end.is_set():
            self._turn += 1
            asks = self._people[self._turn % len(self._people)]
            answer = self._kept(await ask(connection, asks, self._limit))
            await asyncio.sleep(max(self._pause_s, self._every_s - answer.took_s))
        connection.close()

    async def _write_on(self) -> None:
        """Pass on somebody who may be shown, with a new event each time, and look whether the next answer knows."""
        connection = Connection(self._port)
        turn = 0
        while not self._end.is_set():
            actor, target = self._writes[turn % len(self._writes)]
            turn += 1
            written = Written(str(uuid4()), actor, target, 0)
            status, said, _ = await connection.post("/v1/interactions", written.body)
            written = replace(written, status=status, said=said)
            if written.is_acknowledged:
                answer = self._kept(await ask(connection, actor, self._limit))
                written = replace(written, felt=target not in answer.people)
            self.written.append(written)
            await asyncio.sleep(self._pause_s)
        connection.close()


async def ask(connection: Connection, user_id: int, limit: int) -> Answer:
    """Ask for people to be shown to somebody."""
    began = time.monotonic()
    status, body, headers = await connection.post("/v1/recommendations", {"user_id": user_id, "limit": limit})
    return Answer(user_id, began, time.monotonic() - began, status, body, headers)


def ask_each(port: int, people: Iterable[int], limit: int = 50) -> dict[int, Answer]:
    """Ask for each of `people`, one after the other."""

    async def go() -> dict[int, Answer]:
        connection = Connection(port)
        found = {user_id: await ask(connection, user_id, limit) for user_id in people}
        connection.close()
        return found

    return asyncio.run(go())


def percentile(answers: Iterable[Answer], share: float) -> float:
    """Return the seconds that `share` of the answers did not exceed."""
    times = sorted(answer.took_s for answer in answers)
    return times[min(int(share * len(times)), len(times) - 1)]
