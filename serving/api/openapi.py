"""The OpenAPI 3.1 document of the HTTP API, built from the models that validate it.

BentoML's own document says 3.0.2 over JSON schemas of 2020-12, lists errors in shapes that never leave this service
and has no examples; this one replaces it at /docs.json.
"""

import inspect
import json
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.api.calls import ROUTES
from serving.api.health import HealthReport, LiveReport, ReadyReport
from serving.api.models import ErrorEnvelope, InteractionResults, StoredInteraction
from serving.api.openapi_calls import SAID
from serving.api.openapi_parts import HEADERS, KEY, call, json_answer, read
from serving.api.recommendation_models import RecommendationResults, Recommendations
from serving.people.relations import LikesReceived, Matches
from serving.profiles.erasure_models import ErasureReport
from serving.profiles.models import NamedProfileRow, PeopleResults, Person, StoredPerson

_SCHEMAS: Final = "#/components/schemas/"
_PREFIX: Final = "Named"
_ANSWERS: Final[tuple[type[BaseModel], ...]] = (
    Recommendations,
    RecommendationResults,
    StoredInteraction,
    Person,
    StoredPerson,
    PeopleResults,
    InteractionResults,
    Matches,
    LikesReceived,
    ErasureReport,
    ErrorEnvelope,
    LiveReport,
    ReadyReport,
    HealthReport,
)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the document; build it once."""
    bodies = {route.named or route.body: None for route in ROUTES} | {NamedProfileRow: None}
    models: list[tuple[type[BaseModel], Any]] = [
        *((model, "validation") for model in bodies if model is not None),
        *((model, "serialization") for model in _ANSWERS),
    ]
    _, definitions = models_json_schema(models, ref_template=f"{_SCHEMAS}{{model}}")
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = call(route, SAID[route.operation])
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Duet",
            "version": "1",
            "description": "Who should be shown to whom, so that both sides say yes.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("recommendations", "interactions", "people", "operation")],
        "paths": {**paths, **_pages()},
        "components": {"schemas": _plain(definitions["$defs"], models), "securitySchemes": KEY},
    }
    plain: dict[str, Any] = json.loads(json.dumps(whole).replace(f"{_SCHEMAS}{_PREFIX}", _SCHEMAS))
    return plain


def _plain(definitions: dict[str, Any], models: list[tuple[type[BaseModel], Any]]) -> dict[str, Any]:
    # Outside, everybody is named by text: a body is called and described as the one that it extends.
    described = {model.__name__: inspect.getdoc(model.__mro__[1]) for model, _ in models}
    return {
        name.removeprefix(_PREFIX): {**schema, "title": name.removeprefix(_PREFIX), "description": described[name]}
        if name.startswith(_PREFIX)
        else schema
        for name, schema in definitions.items()
    }


def _pages() -> dict[str, Any]:
    return {
        "/health/live": {
            "get": read("live", "Is the process alive", {"200": json_answer(LiveReport, "Alive.")}, is_open=True)
        },
        "/health/ready": {
            "get": read(
                "ready",
                "Should traffic come here",
                {
                    "200": json_answer(ReadyReport, "Ready, perhaps degraded."),
                    "503": json_answer(ReadyReport, "Not ready."),
                },
                is_open=True,
            )
        },
        "/health": {
            "get": read("health", "Every component in detail", {"200": json_answer(HealthReport, "The report.")})
        },
        "/metrics": {
            "get": read(
                "metrics",
                "Prometheus metrics",
                {
                    "200": {
                        "description": "The exposition format.",
                        "headers": HEADERS,
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                },
            )
        },
    }
