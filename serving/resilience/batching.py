"""Makes one call of those that are made in the same turn of the event loop.

Under load many requests stand at the same step when the loop turns: a statement for each of them costs most of what it
costs for all of them. A request that is alone waits for nobody.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(eq=False)
class _Party(Generic[Kind, Key, Value]):
    """Those who ask for the same kind of thing in one turn of the loop; `waiting` counts who has not left."""

    kind: Kind
    keys: list[Key] = field(default_factory=list)
    answers: "list[asyncio.Future[Value]]" = field(default_factory=list)
    waiting: int = 0


class RequestBatcher(Generic[Kind, Key, Value]):
    """Answers `ask` by way of `fetch`, which gets up to `most` keys of one kind and returns as many values.

    What it raises is raised to all of them. When everybody who waits has gone, the call is cancelled.
    """

    def __init__(self, fetch: Callable[[Kind, Sequence[Key]], Awaitable[Sequence[Value]]], most: int = 64) -> None:
        self._fetch = fetch
        self._most = most
        self._gathering: dict[Kind, _Party[Kind, Key, Value]] = {}
        self._under_way: dict[_Party[Kind, Key, Value], asyncio.Task[None]] = {}

    async def ask(self, kind: Kind, key: Key) -> Value:
        """Return the value of a key; only keys of the same kind are fetched together."""
        loop = asyncio.get_running_loop()
        party = self._gathering.get(kind)
        if party is None:
            party = self._gathering[kind] = _Party(kind)
            # It takes its first step in the next turn. In no context: what is bound to one request would be said of all
            # of them.
            task = loop.create_task(self._answer(party), context=contextvars.Context())
            self._under_way[party] = task
            task.add_done_callback(lambda _: self._under_way.pop(party))
        answer: asyncio.Future[Value] = loop.create_future()
        answer.add_done_callback(partial(self._left, party))
        party.waiting += 1
        party.keys.append(key)
        party.answers.append(answer)
        if len(party.keys) == self._most:
            self._close(party)
        return await answer

    def _left(self, party: _Party[Kind, Key, Value], answer: "asyncio.Future[Value]") -> None:
        party.waiting -= 1
        if not party.waiting and answer.cancelled():
            self._close(party)
            self._under_way[party].cancel()

    def _close(self, party: _Party[Kind, Key, Value]) -> None:
        if self._gathering.get(party.kind) is party:
            del self._gathering[party.kind]

    async def _answer(self, party: _Party[Kind, Key, Value]) -> None:
        self._close(party)
        try:
            values = await self._fetch(party.kind, party.keys)
        except Exception as error:  # noqa: BLE001 - those who asked decide what it means
            for answer in party.answers:
                if not answer.done():
                    answer.set_exception(error)
            return
        for answer, value in zip(party.answers, values, strict=True):
            if not answer.done():
                answer.set_result(value)
