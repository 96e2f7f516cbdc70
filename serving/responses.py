"""Turns answers and errors into HTTP responses; the only place that knows the error envelope."""

from collections.abc import Awaitable
from uuid import UUID

import structlog
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from infra.errors import DuetError
from serving import context
from serving.errors import ApiError, InternalError, InvalidRequest

JSON = "application/json"
MAX_DETAILS = 20
_log = structlog.get_logger(__name__)


def ok(answer: object, status: int = 200) -> Response:
    """Render an answer: a model, or a dataclass with the fields of one."""
    return _own(Response(to_json(answer, inf_nan_mode="null"), status_code=status, media_type=JSON))


def refusal(error: ApiError, request_id: UUID) -> Response:
    """Render an error in the envelope, `api_models.ErrorEnvelope`."""
    # Not by way of the model: an overload refuses far more calls than it answers.
    envelope = {
        "error": {"code": error.code, "message": error.message, "details": error.details},
        "request_id": str(request_id),
    }
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return _own(Response(to_json(envelope), status_code=error.status, media_type=JSON, headers=headers))


async def answered(answer: Awaitable[Response]) -> Response:
    """Await a response; whatever is raised instead becomes an envelope, and what we did not foresee is logged."""
    try:
        return await answer
    except ApiError as error:
        return refusal(error, context.current().request_id)
    except Exception as error:  # noqa: BLE001 the last resort of a request: logged, never shown to the client
        return refusal(defect(error), context.current().request_id)


def defect(error: Exception) -> InternalError:
    """Log an unforeseen error with its traceback, and return what the client may know of it."""
    _log.error("request_failed", exc_info=error, expected=isinstance(error, DuetError))
    return InternalError("Something went wrong on our side: tell us the request id.")


def invalid(error: ValidationError) -> InvalidRequest:
    """Render pydantic's findings without its links, its inputs and its class names."""
    details = [
        {"field": ".".join(str(part) for part in finding["loc"]), "message": finding["msg"]}
        for finding in error.errors(include_url=False, include_input=False, include_context=False)[:MAX_DETAILS]
    ]
    first = details[0]
    where = f"`{first['field']}`: " if first["field"] else ""
    return InvalidRequest(f"The request is not valid: {where}{first['message']}.", details)


def _own(response: Response) -> Response:
    context.current().answered_by_us = True
    return response
