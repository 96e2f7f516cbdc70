"""Logging of every process: structlog, with the standard library's loggers routed through it.

JSON in production, readable otherwise; always to stderr, so that a command's output stays clean. Passwords, tokens
and the secrets of URLs are masked before anything is written.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from pydantic import SecretStr

from infra.settings import Settings

MASK = "***"
# Whole words of a name: `token` hides `api_token`, but `n_tokens` and `secretary` are left alone.
_SECRET_NAMES = re.compile(
    r"(?:^|[_\-.])(?:password|passwd|pwd|pw|secret|token|authorization|cookie|credentials?|dsn|api_?key|private_?key)$",
    re.IGNORECASE,
)
# Each part has a longest length: without one, a long text takes time by the square of its length.
_URL_PASSWORD = re.compile(r"(?P<start>[a-z][a-z0-9+.\-]{0,30}://[^\s:/@]{0,256}:)[^\s@]{1,1024}+(?=@)", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    r"(?P<start>\b(?:\w+_)?(?:password|passwd|secret|token|api_?key)[\"']?\s*[=:]\s*[\"']?)(?P<value>[^\s,;&\"']+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<start>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE)
_API_KEY = re.compile(r"(?P<start>\bduet_[a-z0-9]{8,32}_)[0-9a-f]{16,}", re.IGNORECASE)
_MAX_DEPTH = 8

Event = MutableMapping[str, Any]


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's root logger; call it once, in an entry point."""
    as_json = settings.logging.format == "json" or (
        settings.logging.format == "auto" and settings.environment == "production"
    )
    target = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=target.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared[:4],
            structlog.processors.format_exc_info,
            redact,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.logging.level)
    for chatty in ("alembic", "httpx", "httpcore", "urllib3", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def adopt_loggers(*names: str) -> None:
    """Send what libraries write by handlers of their own through ours, so that every line has one form."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def silence_loggers(*names: str) -> None:
    """Drop what libraries write by these loggers; without any handler they do not even put their lines together."""
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = False


def redact(logger: object, method: str, event: Event) -> Event:
    """Mask secrets by the name of their field and by their shape in text, as a structlog processor."""
    del logger, method
    for name, value in event.items():
        if name not in {"_record", "_from_structlog"}:
            event[name] = _masked(name, value)
    return event


def _masked(name: str, value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return MASK if value is not None and _SECRET_NAMES.search(name) and not isinstance(value, bool) else value
    if _SECRET_NAMES.search(name) or isinstance(value, SecretStr):
        return MASK
    if isinstance(value, str):
        return redact_text(value)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {key: _masked(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", item, depth + 1) for item in value]
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """Mask passwords in URLs, `password=…` assignments, bearer tokens and API keys of ours inside a text."""
    text = _URL_PASSWORD.sub(rf"\g<start>{MASK}", text)
    text = _BEARER.sub(rf"\g<start>{MASK}", text)
    text = _API_KEY.sub(rf"\g<start>{MASK}", text)
    return _ASSIGNMENT.sub(rf"\g<start>{MASK}", text)
