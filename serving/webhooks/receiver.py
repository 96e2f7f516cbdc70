"""One delivery over HTTP: no redirect is followed, and no address of a private network is called unless allowed."""

import asyncio
import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

import httpx

from infra.web.client import tls
from infra.webhook_settings import WebhooksSettings
from serving.errors import DeliveryFailed


class Receiver:
    """The server at `settings.url`."""

    def __init__(self, settings: WebhooksSettings) -> None:
        self._url = "" if settings.url is None else settings.url.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._allow_private = settings.allow_private
        self._client = httpx.AsyncClient(
            timeout=settings.timeout_s, trust_env=False, verify=tls(), follow_redirects=False
        )

    async def deliver(self, body: bytes, headers: dict[str, str]) -> None:
        """Post a body; raises DeliveryFailed unless it is answered with 2xx in time."""
        # The URL may hold a secret: no error of the client, which names it, is passed on.
        try:
            async with asyncio.timeout(self._timeout_s):
                url, extensions = await self._checked()
                host = {"host": urlsplit(self._url).netloc.rpartition("@")[2]}
                async with self._client.stream(
                    "POST", url, content=body, headers={**headers, **host}, extensions=extensions
                ) as answer:
                    if not answer.is_success:
                        raise DeliveryFailed(f"The webhook answered with status {answer.status_code}.")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError) as error:
            raise DeliveryFailed(f"The webhook did not answer: {type(error).__name__}.") from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _checked(self) -> tuple[str, dict[str, str]]:
        """Return the URL to call, by address: a name that was checked could mean another one when it is called."""
        parts = urlsplit(self._url)
        if self._allow_private or parts.hostname is None:
            return self._url, {}
        port = parts.port or 443
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(place[0]) for *_, place in found]
        private = next((address for address in addresses if not address.is_global), None)
        if private is not None or not addresses:
            raise DeliveryFailed(
                f"The webhook is at `{private}`, an address that is not public: `DUET_WEBHOOKS__ALLOW_PRIVATE=true` "
                "allows it."
            )
        return _by_address(parts, addresses[0], port), {"sni_hostname": parts.hostname}


def _by_address(parts: SplitResult, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    return parts._replace(netloc=f"{host}:{port}").geturl()
