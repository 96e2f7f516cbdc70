"""The OpenAPI 3.1 document of the HTTP API, built from the models that validate it.

BentoML's own document says 3.0.2 over JSON schemas of 2020-12, lists errors in shapes that never leave this service
and has no examples; this one replaces it at /docs.json.
"""

from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.api_models import (
    INTERACTIONS,
    RECOMMENDATIONS,
    ErrorEnvelope,
    InteractionRequest,
    RecommendationRequest,
    Recommendations,
    StoredInteraction,
)
from serving.errors import (
    ApiError,
    BodyTimeout,
    BodyTooLarge,
    EventConflict,
    InternalError,
    InvalidRequest,
    KeysUnavailable,
    MalformedBody,
    Overloaded,
    RateLimited,
    RequestTimeout,
    StorageUnavailable,
    Unauthorized,
    UnknownUser,
    UnsupportedMediaType,
)
from serving.health import HealthReport, LiveReport, ReadyReport
from serving.request_ids import PATTERN

_DOOR: tuple[type[ApiError], ...] = (Unauthorized, KeysUnavailable)
_BORDER: tuple[type[ApiError], ...] = (
    *_DOOR,
    RateLimited,
    Overloaded,
    MalformedBody,
    BodyTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    InternalError,
    RequestTimeout,
)
_HEADERS = {
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
_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "An id of yours, echoed and logged: letters, digits and `._~:/+=@-`, up to 128. Anything else is "
    "replaced by one of ours. It may be used again: recommendations carry an id of their own in the body.",
    "schema": {"type": "string"},
}
_TRACE = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "The trace that the request belongs to, as W3C's Trace Context has it: logged, and continued where "
    "traces are on.",
    "schema": {"type": "string"},
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}}
_KEY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key of `duet keys create`, where the service asks for one: in production always. "
        "`X-API-Key` takes it as well.",
    }
}
_EXAMPLE_ERROR = {
    "error": {"code": "unknown_user", "message": "Nobody has the id 42.", "details": []},
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_EXAMPLE_RECOMMENDATIONS = {
    "items": [
        {
            "user_id": 7,
            "position": 1,
            "score": 0.41,
            "p_like": 0.72,
            "p_liked_back": 0.57,
            "sources": ["retrieval", "content"],
            "explanation": None,
        }
    ],
    "release": "e3-i3-r2",
    "variant": "champion",
    "experiment": None,
    "cached": False,
    "order": "ranker",
    "level": 1,
    "level_name": "full",
    "reason": None,
    "message": None,
    "degraded": [],
    "timings_ms": {"eligibility": 0.9, "retrieval": 0.7, "ranking": 1.6, "safety": 0.8, "total": 4.4},
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}
_EXAMPLE_STORED = {
    "event_id": "8f14e45f-ceea-467f-a0e6-0242ac120002",
    "status": "stored",
    "matched": False,
    "request_id": "c9f0f895-fb98-4b91-9f5b-0242ac120003",
}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the document; build it once."""
    models: list[tuple[type[BaseModel], Any]] = [
        *((model, "validation") for model in (RecommendationRequest, InteractionRequest)),
        *(
            (model, "serialization")
            for model in (Recommendations, StoredInteraction, ErrorEnvelope, LiveReport, ReadyReport, HealthReport)
        ),
    ]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    stored = _json(StoredInteraction, "Stored now; durable.", _EXAMPLE_STORED)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Duet",
            "version": "1",
            "description": "Who should be shown to whom, so that both sides say yes. Recommendations take a header "
            "`X-Deadline-Ms`: whole milliseconds, at least 10, after which you want what could be had, with its level.",
        },
        "servers": [{"url": "/"}],
        "paths": {
            RECOMMENDATIONS: {
                "post": _call(
                    "recommend",
                    "Recommend people to a person",
                    RecommendationRequest,
                    {"200": _json(Recommendations, "The ranked list, and how it was made.", _EXAMPLE_RECOMMENDATIONS)},
                    (UnknownUser,),
                )
            },
            INTERACTIONS: {
                "post": _call(
                    "store_interaction",
                    "Store what one person did about another",
                    InteractionRequest,
                    {
                        "201": stored,
                        "200": _json(StoredInteraction, "The event id had been stored before.", _EXAMPLE_STORED),
                    },
                    (UnknownUser, EventConflict, StorageUnavailable),
                )
            },
            "/health/live": {
                "get": _read("live", "Is the process alive", {"200": _json(LiveReport, "Alive.")}, is_open=True)
            },
            "/health/ready": {
                "get": _read(
                    "ready",
                    "Should traffic come here",
                    {"200": _json(ReadyReport, "Ready, perhaps degraded."), "503": _json(ReadyReport, "Not ready.")},
                    is_open=True,
                )
            },
            "/health": {
                "get": _read("health", "Every component in detail", {"200": _json(HealthReport, "The report.")})
            },
            "/metrics": {
                "get": _read(
                    "metrics",
                    "Prometheus metrics",
                    {
                        "200": {
                            "description": "The exposition format.",
                            "headers": _HEADERS,
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        }
                    },
                )
            },
        },
        "components": {"schemas": definitions["$defs"], "securitySchemes": _KEY},
    }


def _call(
    operation: str,
    summary: str,
    request: type[BaseModel],
    responses: dict[str, Any],
    errors: tuple[type[ApiError], ...],
) -> dict[str, Any]:
    examples = request.model_config.get("json_schema_extra")
    given = examples["examples"] if isinstance(examples, dict) else []
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [_REQUEST_ID, _TRACE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{request.__name__}"},
                    "examples": {f"example {number}": {"value": value} for number, value in enumerate(given, 1)},  # type: ignore[arg-type]
                }
            },
        },
        "responses": {**responses, **_errors(*_BORDER, *errors)},
        "security": [{"key": []}, {}],
    }


def _read(operation: str, summary: str, responses: dict[str, Any], *, is_open: bool = False) -> dict[str, Any]:
    said = {
        "operationId": operation,
        "summary": summary,
        "parameters": [_REQUEST_ID, _TRACE],
        "responses": {**_errors(InternalError, RequestTimeout, *(() if is_open else _DOOR)), **responses},
    }
    return said if is_open else {**said, "security": [{"key": []}, {}]}


def _json(model: type[BaseModel], description: str, example: object = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if example is not None:
        content["example"] = example
    return {"description": description, "headers": _HEADERS, "content": {"application/json": content}}


def _errors(*errors: type[ApiError]) -> dict[str, Any]:
    """Return a response for each status; errors that share one are all named in it."""
    by_status: dict[int, list[type[ApiError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _error(*sharing) for status, sharing in by_status.items()}


def _error(*sharing: type[ApiError]) -> dict[str, Any]:
    first = sharing[0]
    example = {**_EXAMPLE_ERROR, "error": {"code": first.code, "message": first.__doc__ or "", "details": []}}
    said = _json(
        ErrorEnvelope, " ".join(f"`{error.code}`: {(error.__doc__ or '').strip()}" for error in sharing), example
    )
    if first.status in {429, 503}:
        said["headers"] = {**_HEADERS, **_RETRY_AFTER}
    return said
