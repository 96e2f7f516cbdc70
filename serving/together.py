"""Makes one call of those that are made in the same turn of the event loop.

Under load many requests stand at the same step when the loop turns: a statement for each of them costs most of what it
costs for all of them. A request that is alone waits for nobody.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(eq=False)
class _Party(Generic[Key, Value]):
    """Those who ask for the same kind of thing in one turn of the loop."""

    keys: list[Key] = field(default_factory=list)
    answers: "list[asyncio.Future[Value]]" = field(default_factory=list)


class Together(Generic[Kind, Key, Value]):
    """Answers `ask` by way of `fetch`, which gets up to `most` keys of one kind and returns as many values.

    What it raises is raised to all of them. When everybody who waits has gone, the call is cancelled.
    """

    def __init__(self, fetch: Callable[[Kind, Sequence[Key]], Awaitable[Sequence[Value]]], most: int = 64) -> None:
        self._fetch = fetch
        self._most = most
        self._gathering: dict[Kind, _Party[Key, Value]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def ask(self, kind: Kind, key: Key) -> Value:
        """Return the value of a key; only keys of the same kind are fetched together."""
        loop = asyncio.get_running_loop()
        party = self._gathering.get(kind)
        if party is None:
            party = self._gathering[kind] = _Party()
            # In no context: what is bound to one request would be said of all of them.
            loop.call_soon(self._set_out, kind, party, context=contextvars.Context())
        answer: asyncio.Future[Value] = loop.create_future()
        party.keys.append(key)
        party.answers.append(answer)
        if len(party.keys) == self._most:
            del self._gathering[kind]
        return await answer

    def _set_out(self, kind: Kind, party: _Party[Key, Value]) -> None:
        if self._gathering.get(kind) is party:
            del self._gathering[kind]
        task = asyncio.get_running_loop().create_task(self._answer(kind, party))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        waiting = len(party.answers)

        def one_less(answer: "asyncio.Future[Value]") -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting and answer.cancelled():
                task.cancel()

        for answer in party.answers:
            answer.add_done_callback(one_less)

    async def _answer(self, kind: Kind, party: _Party[Key, Value]) -> None:
        try:
            values = await self._fetch(kind, party.keys)
        except Exception as error:  # noqa: BLE001 - those who asked decide what it means
            for answer in party.answers:
                if not answer.done():
                    answer.set_exception(error)
            return
        for answer, value in zip(party.answers, values, strict=True):
            if not answer.done():
                answer.set_result(value)
