"""Tell the people on call: one structured line in the log always, and a JSON POST to a webhook where one is set.

An alert never makes matters worse: a webhook that is slow, away or refuses is logged and forgotten. Secrets are masked
as they are in logs; callers put no personal data into an alert.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx
import structlog
from pydantic import JsonValue

from infra.logging import redact
from infra.settings import Settings

_MAX_BYTES: Final = 32_768  # what the common receivers of webhooks accept
_MAX_SUMMARY: Final = 1_000
_log = structlog.get_logger("infra.alerts")


def send_alert(settings: Settings, kind: str, summary: str, details: Mapping[str, JsonValue] | None = None) -> None:
    """Log an alert and post it to `settings.alerts.webhook_url`; nothing that goes wrong here is raised.

    Args:
        settings: say where the webhook is and how long to wait for it.
        kind: what happened, one stable word such as `run_failed`: what a receiver routes by.
        summary: one sentence for a person.
        details: figures and links; left out of the message where they are too long for a webhook.
    """
    body = message(settings.environment, kind, summary, details)
    _log.warning("alert", kind=body["kind"], summary=body["summary"], details=body["details"])
    url = settings.alerts.webhook_url
    if url is None:
        return
    # The URL of a webhook is its password: no error of the client, which names it, is written.
    try:
        with httpx.stream(
            "POST",
            url.get_secret_value(),
            content=_encoded(body),
            headers={"content-type": "application/json"},
            timeout=settings.alerts.timeout_s,
        ) as answer:
            if not answer.is_success:
                _log.error("alert not delivered", kind=kind, reason=f"the webhook answered {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as failure:
        _log.error("alert not delivered", kind=kind, reason=type(failure).__name__)


def message(
    environment: str, kind: str, summary: str, details: Mapping[str, JsonValue] | None = None
) -> dict[str, Any]:
    """Return what a webhook receives; `text` is the field that chat systems show."""
    masked = dict(redact(None, "", {"summary": summary[:_MAX_SUMMARY], "details": dict(details or {})}))
    return {"kind": kind, "environment": environment, **masked, "text": f"Duet {kind}: {masked['summary']}"}


def _encoded(body: Mapping[str, Any]) -> bytes:
    content = json.dumps(body, default=str).encode()
    if len(content) <= _MAX_BYTES:
        return content
    return json.dumps({**body, "details": {"left_out": f"{len(content)} bytes; they are in the log"}}).encode()
