"""What proves to a receiver that a delivery is ours and fresh: the headers of Standard Webhooks.

`webhook-signature` is `v1,` and the HMAC-SHA256, in base64, of `<webhook-id>.<webhook-timestamp>.<body>`. A receiver
computes it anew over the bytes that it got, compares without haste (`hmac.compare_digest`), refuses timestamps that are
minutes away from its clock, and remembers ids, because a delivery may come twice.
"""

import base64
import hashlib
import hmac
from uuid import UUID


def signed_headers(key: bytes, event_id: UUID, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery that is sent at `at_s`, unix seconds."""
    signed = b".".join([str(event_id).encode(), str(at_s).encode(), body])
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": str(event_id),
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{signature}",
        "content-type": "application/json",
    }
