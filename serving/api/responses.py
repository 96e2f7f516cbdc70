"""Turns answers and errors into HTTP responses; the only place that knows the error envelope."""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

import structlog
from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.responses import Response

from infra.errors import DuetError
from serving.api import context
from serving.errors import ApiError, InternalError, InvalidRequest, Overloaded

JSON = "application/json"
MAX_DETAILS = 20
_log = structlog.get_logger(__name__)


def ok(answer: object, status: int = 200) -> Response:
    """Render an answer: a model, or a dataclass with the fields of one."""
    return _own(Response(to_json(answer, inf_nan_mode="null"), status_code=status, media_type=JSON))


def refusal(error: ApiError, request_id: str) -> Response:
    """Render an error in the envelope, `models.ErrorEnvelope`."""
    envelope = _envelope(error.code, error.message, error.details, request_id)
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return _own(Response(to_json(envelope), status_code=error.status, media_type=JSON, headers=headers))


@dataclass
class Raw:
    """A response as ASGI sends it."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


def refusal_at_once(error: Overloaded, request_id: str) -> Raw:
    """Render what `refusal` renders of an overload, without looking at what is the same in each."""
    start, end = _frame(error.code, error.message)
    body = start + request_id.encode() + end
    headers = [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", JSON.encode()),
        (b"retry-after", str(error.retry_after_s).encode()),
    ]
    return Raw(headers, body)


@lru_cache(maxsize=16)
def _frame(code: str, message: str) -> tuple[bytes, bytes]:
    nobody = str(UUID(int=0))
    start, _, end = to_json(_envelope(code, message, [], nobody)).partition(nobody.encode())
    return start, end


def _envelope(code: str, message: str, details: list[dict[str, str]], request_id: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "details": details}, "request_id": request_id}


def defect(error: Exception) -> InternalError:
    """Log an unforeseen error with its traceback, and return what the client may know of it."""
    _log.error("request_failed", exc_info=error, expected=isinstance(error, DuetError))
    return InternalError("Something went wrong on our side: tell us the request id.")


def invalid(error: ValidationError) -> InvalidRequest:
    """Render pydantic's findings without its links, its inputs and its class names."""
    details = findings(error)
    first = details[0]
    where = f"`{first['field']}`: " if first["field"] else ""
    return InvalidRequest(f"The request is not valid: {where}{first['message']}.", details)


def findings(error: ValidationError) -> list[dict[str, str]]:
    """Return where a request is not valid and what it must be there, at most MAX_DETAILS of them."""
    return [
        {"field": ".".join(str(part) for part in finding["loc"]), "message": _advice(finding)}
        for finding in error.errors(include_url=False, include_context=False)[:MAX_DETAILS]
    ]


def _advice(finding: ErrorDetails) -> str:
    if finding["type"] in {"int_type", "float_type"} and isinstance(finding["input"], str):
        return f"{finding['msg']}, not a string: send the number without quotation marks"
    return finding["msg"]


def _own(response: Response) -> Response:
    context.current().answered_by_us = True
    return response
