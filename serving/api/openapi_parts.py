"""The parts that the OpenAPI document is made of: calls, reads, answers, errors and headers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from serving.api.models import ErrorEnvelope
from serving.api.request_ids import PATTERN
from serving.api.routing import ApiRoute
from serving.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    KeysUnavailable,
    MalformedBody,
    Overloaded,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    UnsupportedMediaType,
)
from serving.people.names import PersonId

_DOOR: Final = (Unauthorized, KeysUnavailable)
_CALL: Final = (*_DOOR, RateLimited, Overloaded, InvalidRequest, InternalError, RequestTimeout)
_BODY: Final = (MalformedBody, BodyTimeout, BodyTooLarge, UnsupportedMediaType)
HEADERS: Final = {
    "X-Request-ID": {
        "description": "The request's id: yours where it has the form below, else one of ours.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{PATTERN}$"},
    },
    "X-Process-Time": {
        "description": "Seconds spent on the request.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^\d+\.\d{6}$"},
    },
}
REQUEST_ID: Final = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "An id of yours, echoed and logged: letters, digits and `._~:/+=@-`, up to 128. Anything else is "
    "replaced by one of ours. It may be used again: recommendations carry an id of their own in the body.",
    "schema": {"type": "string"},
}
TRACE: Final = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "The trace that the request belongs to, as W3C's Trace Context has it: logged, and continued where "
    "traces are on.",
    "schema": {"type": "string"},
}
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
}
KEY: Final = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of `duet keys create`, where the service asks for one: in production always. "
        "`X-API-Key` takes it as well.",
    }
}
_EXAMPLE_ERROR: Final[dict[str, Any]] = {
    "error": {"code": "unknown_user", "message": "Nobody has the id 42.", "details": []},
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}


@dataclass(frozen=True)
class Said:
    """What the document says of a call: `answers` by status, and the errors beside those that every call has."""

    tag: str
    summary: str
    answers: Mapping[str, Any]
    errors: Sequence[type[ApiError]] = ()
    headers: Sequence[Mapping[str, Any]] = ()
    description: str = ""


def call(route: ApiRoute, said: Said) -> dict[str, Any]:
    """Return the operation of a call."""
    described: dict[str, Any] = {
        "operationId": route.operation,
        "tags": [said.tag],
        "summary": said.summary,
        "parameters": [
            *_path_parameters(route.path),
            *_query_parameters(route.query),
            REQUEST_ID,
            TRACE,
            *said.headers,
        ],
        "responses": {**said.answers, **error_answers(*_CALL, *said.errors)},
        "security": [{"key": []}, {}],
    }
    if said.description:
        described["description"] = said.description
    if route.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": _body(route.named or route.body)}}
        described["responses"] |= error_answers(*_BODY)
    return described


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": part[1:-1], "in": "path", "required": True, "schema": TypeAdapter(PersonId).json_schema()}
        for part in path.split("/")
        if part.startswith("{")
    ]


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    fields: dict[str, dict[str, Any]] = schema["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": about.pop("description"),
            "schema": about,
        }
        for name, about in fields.items()
    ]


def _body(model: type[BaseModel]) -> dict[str, Any]:
    extra = model.model_config.get("json_schema_extra")
    examples: Any = extra.get("examples", []) if isinstance(extra, dict) else []
    return {
        "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
        "examples": {f"example {number}": {"value": value} for number, value in enumerate(examples, 1)},
    }


def read(operation: str, summary: str, responses: dict[str, Any], *, is_open: bool = False) -> dict[str, Any]:
    """Return the operation of a page; an open one needs no key."""
    said = {
        "operationId": operation,
        "tags": ["operation"],
        "summary": summary,
        "parameters": [REQUEST_ID, TRACE],
        "responses": {**error_answers(InternalError, RequestTimeout, *(() if is_open else _DOOR)), **responses},
    }
    return said if is_open else {**said, "security": [{"key": []}, {}]}


def json_answer(model: type[BaseModel], description: str, example: object = None) -> dict[str, Any]:
    """Return an answer whose body is of a model."""
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if example is not None:
        content["example"] = example
    return {"description": description, "headers": HEADERS, "content": {"application/json": content}}


def error_answers(*errors: type[ApiError]) -> dict[str, Any]:
    """Return a response for each status; errors that share one are all named in it."""
    by_status: dict[int, list[type[ApiError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _error(*sharing) for status, sharing in by_status.items()}


def _error(*sharing: type[ApiError]) -> dict[str, Any]:
    first = sharing[0]
    example = {**_EXAMPLE_ERROR, "error": {"code": first.code, "message": first.__doc__ or "", "details": []}}
    said = json_answer(
        ErrorEnvelope, " ".join(f"`{error.code}`: {(error.__doc__ or '').strip()}" for error in sharing), example
    )
    if first.status in {429, 503}:
        said["headers"] = {**HEADERS, **_RETRY_AFTER}
    return said
