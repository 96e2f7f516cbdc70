"""Who gets to MLflow and Dagster: hosts, pages of others, tokens."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from infra.errors import ConfigurationError, DuetError
from infra.settings import Settings, WebSettings, load_settings
from infra.supervisor.platform import run_platform
from infra.supervisor.spec import External, Spec
from infra.supervisor.state import PlatformState
from infra.web import token as tokens
from infra.web.guard import AccessMiddleware, GuardOptions
from infra.web.origins import host_refusal, origin_refusal
from infra.web.token import cookie, needs_token, web_token, with_token

TOKEN = "t0ken-of-a-test"
HERE = "http://127.0.0.1:5000"


class Browser:
    """Asks a guarded page, as a browser that keeps cookies."""

    def __init__(self, token: str | None) -> None:
        page = Route("/{path:path}", lambda request: PlainTextResponse(request.url.query), methods=["GET", "POST"])
        self._options = GuardOptions("127.0.0.1", ("mlflow.example.com",), token)
        self.app = AccessMiddleware(Starlette(routes=[page]), self._options)  # type: ignore[arg-type]
        self.cookies = httpx.Cookies()

    def __call__(self, method: str, path: str, headers: Any = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url=HERE, cookies=self.cookies) as client:
                answer = await client.request(method, path, headers=headers)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def shakes_hands(self, *headers: tuple[bytes, bytes]) -> bool:
        """Tell whether a WebSocket gets through to the page behind."""
        reached = []

        async def behind(scope: Any, receive: Any, send: Any) -> None:
            reached.append(scope["path"])

        async def unused(*_: Any) -> Any: ...

        scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"127.0.0.1:5000"), *headers]}
        asyncio.run(AccessMiddleware(behind, self._options)(scope, unused, unused))
        return bool(reached)


@pytest.mark.parametrize(
    ("host", "listens_on", "is_good"),
    [
        ("127.0.0.1:5000", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("[::1]:5000", "127.0.0.1", True),
        ("evil.example:5000", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("mlflow.example.com", "127.0.0.1", True),
        ("10.0.0.7:5000", "127.0.0.1", False),
        ("10.0.0.7:5000", "10.0.0.7", True),
        ("10.0.0.7:5000", "0.0.0.0", True),  # noqa: S104
        ("evil.example", "0.0.0.0", False),  # noqa: S104
        ("[::1", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        (None, "127.0.0.1", False),
    ],
)
def test_a_host_that_is_no_name_of_the_server_is_refused(host: str | None, listens_on: str, is_good: bool) -> None:  # noqa: FBT001
    assert (host_refusal(host, listens_on, ("mlflow.example.com",)) is None) is is_good


@pytest.mark.parametrize(
    ("headers", "method", "is_good"),
    [
        ({}, "POST", True),  # a program, not a browser
        ({"origin": HERE}, "POST", True),
        ({"origin": "https://mlflow.example.com"}, "POST", True),
        ({"origin": "http://evil.example"}, "GET", False),
        ({"origin": "http://127.0.0.1:8080"}, "POST", False),  # somebody else's server on this machine
        ({"origin": "null"}, "POST", False),
        ({"origin": "http://evil.example"}, "WEBSOCKET", False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, "GET", False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, "GET", False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, "GET", True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, "GET", False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, "POST", False),
        ({"sec-fetch-site": "same-origin"}, "GET", True),
    ],
)
def test_a_request_that_a_page_of_others_made_is_refused(headers: dict[str, str], method: str, is_good: bool) -> None:  # noqa: FBT001
    refusal = origin_refusal({"host": "127.0.0.1:5000", **headers}, method, ("mlflow.example.com",))
    assert (refusal is None) is is_good


def test_whoever_has_no_token_gets_nothing_but_health() -> None:
    ask = Browser(TOKEN)
    assert ask("GET", "/").status_code == 401
    assert ask("GET", "/", {"Authorization": "Bearer wrong"}).status_code == 401
    assert ask("GET", "/?token=wrong").status_code == 401
    assert ask("POST", f"/?token={TOKEN}").status_code == 401
    assert ask("GET", "/health").status_code == 200
    assert ask("GET", "/", {"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert not ask.shakes_hands()
    assert Browser(None).shakes_hands()
    assert not Browser(None).shakes_hands((b"origin", b"http://evil.example"))


def test_where_no_token_is_asked_for_foreign_hosts_and_pages_of_others_are_refused_all_the_same() -> None:
    ask = Browser(None)
    for method in ("GET", "POST"):
        assert ask(method, "/", {"Origin": HERE}).status_code == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            assert ask(method, "/", headers).status_code == 403, (method, headers)
    assert not ask.shakes_hands((b"origin", b"null"))


def test_a_link_with_the_token_becomes_a_cookie_that_no_script_reads() -> None:
    ask = Browser(TOKEN)
    answer = ask("GET", f"/runs?a=1&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?a=1")
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert TOKEN not in answer.headers["set-cookie"]
    assert ask("GET", "/runs?a=1").text == "a=1"
    held = "=".join(cookie(TOKEN)).encode()
    assert ask.shakes_hands((b"cookie", b"other=1"), (b"cookie", held))
    assert not Browser("another").shakes_hands((b"cookie", held))


def test_behind_a_proxy_with_tls_the_cookie_is_sent_over_tls_only() -> None:
    plain = Browser(TOKEN)("GET", f"/?token={TOKEN}")
    behind = Browser(TOKEN)("GET", f"/?token={TOKEN}", {"X-Forwarded-Proto": "https"})
    assert ["secure" in answer.headers["set-cookie"].lower() for answer in (plain, behind)] == [False, True]


def test_the_link_with_the_token_leads_to_no_other_server() -> None:
    answer = Browser(TOKEN)("GET", f"{HERE}//evil.example/x?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/x"


def test_a_header_that_stands_twice_is_refused() -> None:
    assert Browser(None)("POST", "/", [("Origin", HERE), ("Origin", "http://evil.example")]).status_code == 400


@pytest.mark.parametrize(
    ("environment", "auth", "caller", "people", "is_needed"),
    [
        ("development", "auto", 1000, [1000], False),
        ("development", "auto", 1000, [1000, 1001], True),
        ("development", "auto", 0, [], False),
        ("development", "auto", 0, [1000], True),
        ("development", "off", 1000, [1000, 1001], False),
        ("development", "required", 1000, [], True),
        ("production", "auto", 1000, [], True),
    ],
)
def test_a_token_is_asked_for_in_production_and_where_others_have_accounts(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    auth: str,
    caller: int,
    people: list[int],
    is_needed: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(tokens, "_people", lambda: iter(people))
    monkeypatch.setattr("os.geteuid", lambda: caller)
    web = settings.web.model_copy(update={"auth": auth})
    asked = settings.model_copy(update={"environment": environment, "web": web})
    assert needs_token(asked) is is_needed
    assert (web_token(asked) is not None) is is_needed


def test_an_account_that_is_made_while_the_platform_runs_parts_no_server_from_its_clients(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [os.geteuid()]
    monkeypatch.setattr(tokens, "_people", lambda: iter(people))
    given: list[Settings] = []

    @contextmanager
    def stack(settings: Settings) -> Iterator[tuple[list[Spec], list[External]]]:
        given.append(settings)
        yield [], []

    def end(_: PlatformState) -> None:
        raise DuetError("seen enough")

    auto = settings.model_copy(update={"web": settings.web.model_copy(update={"auth": "auto"})})
    with pytest.raises(DuetError, match="seen enough"):
        run_platform(auto, on_ready=end, stack=stack)
    people.append(os.geteuid() + 1)
    assert [web_token(auto) is None, web_token(given[0]) is None] == [False, True]


def test_the_token_cannot_be_switched_off_in_production(settings: Settings) -> None:
    web = settings.web.model_copy(update={"auth": "off"})
    with pytest.raises(ConfigurationError, match="DUET_WEB__AUTH"):
        needs_token(settings.model_copy(update={"environment": "production", "web": web}))


def test_the_token_is_kept_where_only_its_owner_reads_it(settings: Settings) -> None:
    asked = settings.model_copy(update={"web": settings.web.model_copy(update={"auth": "required"})})
    token = web_token(asked)
    assert token == web_token(asked)
    kept: Path = settings.data_dir / "secrets" / "web_token"
    assert kept.stat().st_mode & 0o077 == 0
    assert with_token("http://127.0.0.1:3000", token) == f"http://127.0.0.1:3000/?token={token}"


def test_servers_with_folders_of_their_own_share_a_configured_token(settings: Settings, tmp_path: Path) -> None:
    web = WebSettings(auth="required", token=SecretStr("a-token-for-all-of-them"))
    for folder in ("mlflow", "dagster"):
        own = settings.model_copy(update={"web": web, "data_dir": tmp_path / folder})
        assert web_token(own) == "a-token-for-all-of-them"
        assert not (tmp_path / folder).exists()  # nothing is made beside it


def test_a_short_token_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_WEB__TOKEN", "short")
    with pytest.raises(ConfigurationError, match="`DUET_WEB__TOKEN` is a secret, which is refused"):
        load_settings()
