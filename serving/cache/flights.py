"""Work that many want at once is done once, in a task of its own: whoever gives up waiting cannot end it for others."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """What is being worked on now, by person and key."""

    def __init__(self) -> None:
        self._flying: dict[tuple[int, str], asyncio.Task[Result]] = {}

    def __contains__(self, flight: tuple[int, str]) -> bool:
        return flight in self._flying

    async def join(self, user_id: int, key: str, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of `work`, which is begun unless it is under way; raises what the work raises, to all."""
        flight = (user_id, key)
        task = self._flying.get(flight)
        if task is None:
            task = self._flying[flight] = asyncio.create_task(work())
            task.add_done_callback(partial(self._landed, flight))
        return await asyncio.shield(task)

    def forget(self, user_id: int) -> None:
        """Let whoever comes from now on begin anew; those who wait already get what they wait for."""
        for flight in [flight for flight in self._flying if flight[0] == user_id]:
            del self._flying[flight]

    def _landed(self, flight: tuple[int, str], task: asyncio.Task[Result]) -> None:
        if self._flying.get(flight) is task:
            del self._flying[flight]
        if not task.cancelled():
            task.exception()  # a failure that nobody waits for any more is no warning
