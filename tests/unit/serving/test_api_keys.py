import asyncio
from collections.abc import Sequence
from hmac import compare_digest
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from infra.clock import SystemClock
from infra.errors import ConfigurationError
from infra.metrics import serving_metrics
from infra.safe_settings import needs_key, refuse_unsafe
from infra.settings import Settings
from serving.access import table as table_module
from serving.access.authentication import Authenticator, Caller
from serving.access.keys import Key, digest, new_key, split
from serving.access.limits import RateLimits
from serving.access.policy import guard_start
from serving.access.table import KeyTable
from serving.errors import KeysUnavailable, RateLimited, Unauthorized
from tests.clocks import FixedClock

KEY_ID, WHOLE, SHA256 = new_key()
KEY = Key(KEY_ID, "website", SHA256, None, tester=False)


def table_of(*keys: Key) -> KeyTable:
    async def read() -> Sequence[Key]:
        return keys

    table = KeyTable(read, 5.0)
    asyncio.run(table.refresh())
    return table


def closed_door(*keys: Key) -> Authenticator:
    authenticator = Authenticator(Settings(serving={"auth": {"mode": "required"}}), SystemClock(), serving_metrics())
    authenticator.table = table_of(*keys)
    return authenticator


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


def test_a_key_has_256_random_bits_and_only_their_digest_is_kept() -> None:
    parts = split(WHOLE)
    assert parts is not None
    assert parts[0] == KEY_ID
    assert len(bytes.fromhex(parts[1])) == 32
    assert digest(parts[1]) == SHA256
    assert parts[1] not in repr(KEY)
    assert new_key()[1] != WHOLE


@pytest.mark.parametrize(
    "presented",
    ["", "duet", "duet__", WHOLE[:-1], WHOLE + "0", WHOLE.upper(), f" {WHOLE}", "é" * 80],
    # The key is new in every process: it must not be part of a test's name.
    ids=["nothing", "prefix", "separators", "short", "long", "upper", "space", "accents"],
)
def test_what_is_no_key_is_refused(presented: str) -> None:
    with pytest.raises(Unauthorized):
        table_of(KEY).authenticate(presented)


def test_the_right_key_is_known_and_a_wrong_secret_or_an_unknown_id_is_refused_alike() -> None:
    table = table_of(KEY)
    assert table.authenticate(WHOLE) is KEY
    wrong_secret, unknown_id = f"duet_{KEY_ID}_{'0' * 64}", f"duet_{'a' * 12}_{WHOLE[-64:]}"
    said = set()
    for presented in (wrong_secret, unknown_id):
        with pytest.raises(Unauthorized) as refused:
            table.authenticate(presented)
        said.add(str(refused.value))
    assert len(said) == 1


def test_an_unknown_id_costs_the_same_hash_and_comparison_as_a_wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def work_of(presented: str) -> list[tuple[str, int, int]]:
        work: list[tuple[str, int, int]] = []

        def hashed(secret: str) -> bytes:
            work.append(("hash", len(secret), 0))
            return digest(secret)

        def compared(one: bytes, other: bytes) -> bool:
            work.append(("compare", len(one), len(other)))
            return compare_digest(one, other)

        monkeypatch.setattr(table_module, "digest", hashed)
        monkeypatch.setattr(table_module.hmac, "compare_digest", compared)
        with pytest.raises(Unauthorized):
            table.authenticate(presented)
        monkeypatch.undo()
        return work

    table = table_of(KEY)
    unknown_id = work_of(f"duet_{'a' * 12}_{'0' * 64}")
    assert unknown_id == work_of(f"duet_{KEY_ID}_{'0' * 64}") == [("hash", 64, 0), ("compare", 32, 32)]


def test_the_secret_of_nobody_opens_nothing() -> None:
    with pytest.raises(Unauthorized):
        table_of().authenticate(f"duet_{'a' * 12}_{'0' * 64}")


def test_before_the_first_read_callers_are_told_to_come_again_and_later_the_last_good_keys_stay() -> None:
    broken = True

    async def read() -> Sequence[Key]:
        if broken:
            raise ConnectionError("postgresql://duet:hunter2@db/duet")
        return [KEY]

    table = KeyTable(read, 5.0)
    asyncio.run(table.refresh())
    with pytest.raises(KeysUnavailable) as refused:
        table.authenticate(WHOLE)
    assert refused.value.retry_after_s == 1
    broken = False
    asyncio.run(table.refresh())
    assert table.problem is None
    broken = True
    asyncio.run(table.refresh())
    assert table.authenticate(WHOLE) is KEY
    assert table.problem is not None
    assert "hunter2" not in table.problem


def test_a_key_is_taken_from_either_header() -> None:
    authenticator = closed_door(KEY)
    assert authenticator.admit(bearer(WHOLE)).key is KEY
    assert authenticator.admit({b"x-api-key": WHOLE.encode()}).key is KEY
    for headers in ({}, {b"authorization": b"Basic " + WHOLE.encode()}, {b"authorization": b"\xff"}):
        with pytest.raises(Unauthorized):
            authenticator.admit(headers)


def test_before_the_servers_are_known_nobody_comes_in() -> None:
    authenticator = Authenticator(Settings(serving={"auth": {"mode": "required"}}), SystemClock(), serving_metrics())
    with pytest.raises(KeysUnavailable):
        authenticator.admit(bearer(WHOLE))


LOCAL = ("127.0.0.1", 5)


@pytest.mark.parametrize(
    ("proxies", "headers", "client", "is_let_in"),
    [
        ((), {}, LOCAL, False),  # a proxy here that adds no header looks the same
        ((), {b"x-forwarded-for": b"127.0.0.1"}, LOCAL, False),
        (("10.0.0.5",), {}, LOCAL, True),
        (("10.0.0.5",), {}, ("::1", 5), True),
        (("10.0.0.5",), {b"x-forwarded-for": b"127.0.0.1"}, LOCAL, False),
        (("10.0.0.5",), {b"via": b"1.1 nginx"}, LOCAL, False),
        (("10.0.0.5",), {}, ("10.0.0.5", 5), False),
        (("10.0.0.5",), {}, ("192.0.2.1", 5), False),
        (("10.0.0.5",), {}, ("somewhere", 5), False),
        (("10.0.0.5",), {}, None, False),
        (("127.0.0.1",), {}, LOCAL, False),  # the proxy itself, or whoever it speaks for
        (("10.0.0.5", "0.0.0.0/0"), {}, LOCAL, False),
    ],
)
def test_pages_open_without_a_key_only_where_the_settings_say_that_no_proxy_is_here(
    proxies: tuple[str, ...],
    headers: dict[bytes, bytes],
    client: tuple[str, int] | None,
    is_let_in: bool,  # noqa: FBT001
) -> None:
    settings = Settings(serving={"auth": {"mode": "required"}, "trusted_proxies": proxies})
    authenticator = Authenticator(settings, SystemClock(), serving_metrics())
    authenticator.table = table_of(KEY)
    if is_let_in:
        assert authenticator.admit_to_pages(headers, client).key is None
    else:
        with pytest.raises(Unauthorized):
            authenticator.admit_to_pages(headers, client)
    assert authenticator.admit_to_pages({**headers, **bearer(WHOLE)}, ("192.0.2.1", 5)).key in {KEY, None}


def test_who_has_the_token_of_the_services_own_folder_looks_at_its_pages() -> None:
    authenticator = Authenticator(
        Settings(serving={"auth": {"mode": "required"}}), SystemClock(), serving_metrics(), own_token="mine"
    )
    authenticator.table = table_of(KEY)
    assert authenticator.admit_to_pages(bearer("mine"), ("192.0.2.1", 5)).key is None
    for wrong in ("mines", ""):
        with pytest.raises(Unauthorized):
            authenticator.admit_to_pages(bearer(wrong), LOCAL)
    with pytest.raises(Unauthorized):
        authenticator.admit(bearer("mine"))  # it is no key for calls


def test_testers_are_those_whose_key_says_so_and_everybody_where_no_key_is_needed() -> None:
    open_door = Authenticator(Settings(), SystemClock(), serving_metrics())
    assert open_door.admit({}).tester
    assert not closed_door(KEY).admit(bearer(WHOLE)).tester
    assert Caller(Key("a" * 8, "qa", SHA256, None, tester=True)).tester


def test_a_key_that_used_up_its_minute_is_told_when_to_come_again() -> None:
    key = Key("b" * 12, "small", SHA256, 3, tester=False)
    other = Key("c" * 12, "other", SHA256, None, tester=False)

    async def go() -> RateLimited:
        limits = RateLimits(default_per_minute=100, clock=SystemClock(), timeout_s=0.05)
        for _ in range(3):
            await limits.count(key)
        await limits.count(other)
        with pytest.raises(RateLimited) as refused:
            await limits.count(key)
        return refused.value

    refusal = asyncio.run(go())
    assert refusal.retry_after_s is not None
    assert 1 <= refusal.retry_after_s <= 60
    assert "3 calls a minute" in str(refusal)


def test_a_call_without_a_key_is_not_counted() -> None:
    async def go() -> None:
        limited = Settings(serving={"auth": {"requests_per_minute": 1}})
        authenticator = Authenticator(limited, SystemClock(), serving_metrics())
        for _ in range(3):
            await authenticator.count(Caller(None))

    asyncio.run(go())


def production(**serving: Any) -> Settings:
    return Settings(environment="production", serving=serving)


def test_keys_are_needed_in_production_and_elsewhere_when_asked_for() -> None:
    assert needs_key(production())
    assert not needs_key(Settings())
    assert needs_key(Settings(serving={"auth": {"mode": "required"}}))


def test_an_open_production_service_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"DUET_SERVING__AUTH__MODE.*refused in production"):
        refuse_unsafe(production(auth={"mode": "off"}))
    with pytest.raises(ConfigurationError, match=r"DUET_SERVING__CORS_ORIGINS.*name the origins"):
        refuse_unsafe(production(cors_origins=("*",), cors_credentials=True))
    refuse_unsafe(production(cors_origins=("*",)))
    refuse_unsafe(Settings(serving={"cors_origins": ("*",), "cors_credentials": True}))


def test_a_start_goes_on_when_the_keys_cannot_be_read_now() -> None:
    nowhere = SecretStr("postgresql://duet@127.0.0.1:1/duet")
    guard_start(production().model_copy(update={"database_url": nowhere}))
    guard_start(production())


def test_a_service_that_anybody_on_the_network_may_call_is_announced_loudly() -> None:
    with structlog.testing.capture_logs() as logs:
        guard_start(Settings(serving={"host": "0.0.0.0"}))  # noqa: S104
        guard_start(Settings())
        guard_start(Settings(serving={"host": "localhost"}))
    assert [(line["event"], line["log_level"]) for line in logs] == [("open_to_everybody", "warning")]


def test_a_fixed_clock_does_not_end_the_wait_below_a_second(clock: FixedClock) -> None:
    async def go() -> int | None:
        clock.advance(10 * 365 * 86400)  # later than any window: the rest of it is negative
        limits = RateLimits(default_per_minute=1, clock=clock, timeout_s=0.05)
        await limits.count(KEY)
        with pytest.raises(RateLimited) as refused:
            await limits.count(KEY)
        return refused.value.retry_after_s

    assert asyncio.run(go()) == 1
