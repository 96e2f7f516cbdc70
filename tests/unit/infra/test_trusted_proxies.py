"""Whose word for the address of a client counts, by uvicorn's own reading of what the settings make of it."""

import asyncio
import os
from typing import Any

import pytest
import uvicorn

from infra.web.limits import trust_proxies

CLIENT = "203.0.113.9"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "as it was")  # put back after the test


def seen_from(peer: str) -> str:
    """The client that an app sees when `peer` connects and says that it speaks for another."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        seen.append(scope["client"][0])

    async def unused(*_: Any) -> Any: ...

    config = uvicorn.Config(app)
    config.load()
    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", CLIENT.encode())], "scheme": "http"}
    asyncio.run(config.loaded_app(scope, unused, unused))
    return seen[0]


def test_the_proxies_that_are_named_are_believed_and_nobody_else() -> None:
    trust_proxies(("172.30.66.10", "10.1.0.0/16"))
    assert os.environ["FORWARDED_ALLOW_IPS"] == "172.30.66.10,10.1.0.0/16"
    assert [seen_from(peer) for peer in ("172.30.66.10", "10.1.2.3")] == [CLIENT, CLIENT]
    assert [seen_from(peer) for peer in ("172.30.66.11", "127.0.0.1")] == ["172.30.66.11", "127.0.0.1"]


def test_without_a_named_proxy_nobody_is_believed_not_even_this_machine() -> None:
    trust_proxies(())
    assert [seen_from(peer) for peer in ("127.0.0.1", "::1", CLIENT)] == ["127.0.0.1", "::1", CLIENT]


def test_a_proxy_on_this_machine_is_believed_where_it_is_named() -> None:
    trust_proxies(("127.0.0.1",))
    assert seen_from("127.0.0.1") == CLIENT
