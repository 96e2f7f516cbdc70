"""One TLS context for all short requests of a process."""

import ssl
from functools import cache

import httpx


@cache
def tls() -> ssl.SSLContext:
    """Return the context to give as `verify`: httpx otherwise reads all certificates for each request, in 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
