"""Lets a request in: finds its key, counts its calls, and says what it may do."""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from infra.clock import Clock
from infra.db.connection_pool import ConnectionPool
from infra.metrics import ServingMetrics
from infra.safe_settings import needs_key
from infra.settings import Settings
from serving.access.keys import Key
from serving.access.limits import RateLimits
from serving.access.store import ACTIVE, active_keys
from serving.access.table import KeyTable
from serving.errors import ApiError, KeysUnavailable, RateLimited, Unauthorized

_MISSING = "missing"
_REASONS = (_MISSING, Unauthorized.code, RateLimited.code, KeysUnavailable.code)
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
Headers = Mapping[bytes, bytes]


@dataclass(frozen=True)
class Caller:
    """Who calls; `key` is None where none is needed."""

    key: Key | None

    @property
    def tester(self) -> bool:
        """Tell whether the caller may choose the arm of an experiment."""
        return self.key is None or self.key.tester


class Authenticator:
    """The one place that decides who comes in; `attach` gives it the servers once they are known."""

    def __init__(self, settings: Settings, clock: Clock, metrics: ServingMetrics, own_token: str | None = None) -> None:
        self._settings = settings
        self._own_token = own_token
        self._proxies = tuple(ipaddress.ip_network(text) for text in settings.serving.trusted_proxies)
        self._clock = clock
        self._metrics = metrics
        for reason in _REASONS:
            metrics.auth_refusals.labels(reason)  # the series is there before the first of its kind
        self.closed = needs_key(settings)
        self.table: KeyTable | None = None
        self._limits = self._count_with(None)

    def attach(self, pool: ConnectionPool, redis: Redis) -> KeyTable:
        """Use these servers; return the table, whose `run` keeps it fresh."""

        async def read() -> list[Key]:
            async with pool.connection() as connection:
                return active_keys(await (await connection.execute(ACTIVE)).fetchall())

        auth = self._settings.serving.auth
        self.table = KeyTable(read, auth.refresh_s)
        if auth.shared_limits:
            self._limits = self._count_with(redis)
        return self.table

    @property
    def problem(self) -> str | None:
        """Return why the keys could not be read the last time."""
        return None if self.table is None else self.table.problem

    def outage(self) -> str | None:
        """Return why every call is refused now, whatever its key; None when keys can be checked or none is needed."""
        if not self.closed or (self.table is not None and self.table.known):
            return None
        return f"Every call is refused: {self.problem or 'The API keys were not read yet.'}"

    def admit(self, headers: Headers) -> Caller:
        """Return who calls; raises Unauthorized or KeysUnavailable."""
        if not self.closed:
            return Caller(None)
        presented = _presented(headers)
        try:
            if presented is None:
                raise Unauthorized("An API key is needed: send `Authorization: Bearer duet_…`.")
            if self.table is None:
                raise KeysUnavailable("API keys cannot be checked yet: try again in a moment.", retry_after_s=1)
            return Caller(self.table.authenticate(presented))
        except ApiError as refusal:
            self._refused(refusal, presented=presented is not None)
            raise

    def admit_to_pages(self, headers: Headers, client: tuple[str, int] | None) -> Caller:
        """Return who looks at health in detail, metrics or documents.

        Beside a key, the token in this service's own data directory opens them: `duet status` has it. Being on this
        machine does so only where the proxies are named in the settings, and none of them is on it: a proxy here that
        adds no header makes everybody outside look like this machine.
        """
        if self.closed and (self._is_own(headers) or self._is_this_machine(headers, client)):
            return Caller(None)
        return self.admit(headers)

    def _is_own(self, headers: Headers) -> bool:
        presented = _presented(headers) if self._own_token is not None else None
        return presented is not None and hmac.compare_digest(presented.encode(), str(self._own_token).encode())

    def _is_this_machine(self, headers: Headers, client: tuple[str, int] | None) -> bool:
        if not self._proxies or client is None or any(name in headers for name in _FORWARDED):
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        return address.is_loopback and not any(_is_loopback(network) for network in self._proxies)

    async def count(self, caller: Caller) -> None:
        """Count one call; raises RateLimited."""
        if caller.key is None:
            return
        try:
            await self._limits.count(caller.key)
        except RateLimited as refusal:
            self._refused(refusal, presented=True)
            raise

    def _refused(self, refusal: ApiError, *, presented: bool) -> None:
        reason = refusal.code if presented else _MISSING
        self._metrics.auth_refusals.labels(reason).inc()

    def _count_with(self, redis: Redis | None) -> RateLimits:
        return RateLimits(
            default_per_minute=self._settings.serving.auth.requests_per_minute,
            clock=self._clock,
            timeout_s=self._settings.redis.socket_timeout_s,
            redis=redis,
        )


def _presented(headers: Headers) -> str | None:
    bearer = headers.get(b"authorization")
    if bearer is None:
        key = headers.get(b"x-api-key")
        return None if key is None else key.decode("latin-1").strip()
    scheme, _, token = bearer.decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_loopback(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    loopback = ipaddress.ip_network("127.0.0.0/8" if network.version == 4 else "::1/128")
    return network.overlaps(loopback)
