import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from serving.resilience.batching import RequestBatcher

Asked = list[tuple[str, list[int]]]
who: ContextVar[str] = ContextVar("who", default="nobody")


def doubling(asked: Asked, gate: asyncio.Event | None = None) -> RequestBatcher[str, int, int]:
    async def fetch(kind: str, keys: Sequence[int]) -> list[int]:
        asked.append((kind, list(keys)))
        if gate is not None:
            await gate.wait()
        return [2 * key for key in keys]

    return RequestBatcher(fetch, most=4)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_those_who_ask_in_one_turn_are_answered_by_one_call_each_with_their_own() -> None:
    async def go() -> None:
        asked: Asked = []
        together = doubling(asked)
        assert await asyncio.gather(*(together.ask("a", key) for key in (3, 1, 3))) == [6, 2, 6]
        assert asked == [("a", [3, 1, 3])]
        assert await together.ask("a", 5) == 10
        assert asked[1:] == [("a", [5])]

    in_a_loop(go)


def test_only_the_same_kind_is_fetched_together_and_not_too_many_at_once() -> None:
    async def go() -> None:
        asked: Asked = []
        together = doubling(asked)
        every = [together.ask("b" if key == 9 else "a", key) for key in (1, 2, 9, 3, 4, 5)]
        assert await asyncio.gather(*every) == [2, 4, 18, 6, 8, 10]
        assert sorted(asked) == [("a", [1, 2, 3, 4]), ("a", [5]), ("b", [9])]

    in_a_loop(go)


def test_a_failure_reaches_all_of_them_and_nobody_after_them() -> None:
    async def go() -> None:
        broken = True

        async def fetch(_: str, keys: Sequence[int]) -> list[int]:
            await asyncio.sleep(0)
            if broken:
                raise OSError("away")
            return list(keys)

        together = RequestBatcher[str, int, int](fetch)
        assert [
            str(error)
            for error in await asyncio.gather(together.ask("a", 1), together.ask("a", 2), return_exceptions=True)
        ] == ["away", "away"]
        broken = False
        assert await together.ask("a", 3) == 3

    in_a_loop(go)


def test_whoever_leaves_takes_nothing_from_the_others() -> None:
    async def go() -> None:
        asked: Asked = []
        gate = asyncio.Event()
        together = doubling(asked, gate)
        leaving, staying = asyncio.create_task(together.ask("a", 1)), asyncio.create_task(together.ask("a", 2))
        for _ in range(3):
            await asyncio.sleep(0)
        assert asked == [("a", [1, 2])]
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gate.set()
        assert await staying == 4

    in_a_loop(go)


@pytest.mark.parametrize("turns", [0, 5], ids=["before the call", "during the call"])
def test_when_all_have_left_the_call_ends_too(turns: int) -> None:
    async def go() -> None:
        ended = asyncio.Event()

        async def fetch(_: str, keys: Sequence[int]) -> list[int]:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return list(keys)

        together = RequestBatcher[str, int, int](fetch)
        both = [asyncio.create_task(together.ask("a", key)) for key in (1, 2)]
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not together._under_way
        assert ended.is_set() or not turns

    in_a_loop(go)


def test_the_call_is_made_in_nobodys_name() -> None:
    async def go() -> None:
        async def fetch(_: str, keys: Sequence[int]) -> list[str]:
            return [who.get()] * len(keys)

        who.set("somebody")
        assert await RequestBatcher[str, int, str](fetch).ask("a", 1) == "nobody"

    in_a_loop(go)
