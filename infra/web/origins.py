"""Which requests may have been made by a page of another server: pure functions of a request's headers.

A page can make a browser send requests anywhere, and can give its own name the address of this machine (DNS
rebinding). The browser tells on it by `Host`, `Origin` and `Sec-Fetch-Site`, which no page can change.
"""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_READING = frozenset({"GET", "HEAD"})
_OWN_PAGES = frozenset({"same-origin", "none"})


def host_refusal(host: str | None, listens_on: str, allowed: Collection[str]) -> str | None:
    """Return why a request with this Host header is refused, None when it is not.

    Loopback, the address that the server listens on and the names in `allowed` are good. A server that listens on every
    address cannot know its own: there any address in digits is good, because rebinding needs a name.
    """
    name = _hostname(f"//{host}") if host else None
    if name is not None and (name in LOOPBACK_NAMES or name in {listens_on.lower(), *(h.lower() for h in allowed)}):
        return None
    if name is not None and listens_on in ANY_ADDRESS and _is_address(name):
        return None
    return f"The Host `{host or ''}` is no name of this server: if it is one, add it to `DUET_WEB__ALLOWED_HOSTS`."


def origin_refusal(headers: Mapping[str, str], method: str, allowed: Collection[str]) -> str | None:
    """Return why a request that a page of another server may have made is refused, None when it is not.

    Args:
        headers: of the request, names in small letters.
        method: of the request; `WEBSOCKET` for a handshake.
        allowed: host names under which this server is reached, too.
    """
    origin = headers.get("origin")
    if origin is not None:
        name = _hostname(origin)
        is_own = urlsplit(origin).netloc.lower() == headers.get("host", "").lower() if name is not None else False
        if not is_own and (name is None or name not in {h.lower() for h in allowed}):
            return f"Pages of `{origin}` may not send requests to this server."
    site = headers.get("sec-fetch-site", "none")
    if site in _OWN_PAGES or origin is not None:
        return None
    follows_link = method in _READING and (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
        "navigate",
        "document",
    )
    return None if follows_link else "Pages of other servers may link to this one, and nothing else."


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
