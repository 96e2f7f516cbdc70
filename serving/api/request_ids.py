"""Which names of a request are kept that come from outside: an X-Request-ID, and the trace of a `traceparent`.

Both go into logs, headers and bodies, so only letters, digits and a few marks that mean nothing there are kept.
"""

import re
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

PATTERN: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._~:/+=@\-]{0,126}[A-Za-z0-9=])?"
"""A UUID, a ULID, a trace id, `service/123`, Base64, and most of what else people number requests with."""
_REQUEST_ID: Final = re.compile(PATTERN)
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST: Final = 256


@dataclass(frozen=True)
class TraceParent:
    """The trace that a caller's request belongs to, as W3C's Trace Context has it: ids in hexadecimal digits."""

    trace_id: str
    span_id: str
    sampled: bool


def accept_request_id(header: bytes | None) -> str:
    """Keep the client's X-Request-ID where it is of a sane form, or make a UUID."""
    text = _text(header)
    return text if text is not None and _REQUEST_ID.fullmatch(text) else str(uuid4())


def accept_traceparent(header: bytes | None) -> TraceParent | None:
    """Return what a `traceparent` says; None without one, or where it is none."""
    match = _TRACEPARENT.fullmatch(_text(header) or "")
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # Version 0 has four fields; later ones may have more. Zeros are no id.
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & 1))


def _text(header: bytes | None) -> str | None:
    if header is None or len(header) > _LONGEST:
        return None
    try:
        return header.decode("ascii")
    except UnicodeDecodeError:
        return None
