"""Clients of v1 of the API go on working: the document of today against the snapshot that they rely on."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.api.openapi import document
from serving.clients import snapshot
from serving.clients.compatibility import breaks, essence

Document = dict[str, Any]
Change = Callable[[Document], object]


def test_no_client_of_v1_is_broken() -> None:
    assert breaks(snapshot.kept(), document()) == []


def answer(status: str, schema: Document) -> Document:
    return {status: {"headers": {"X-Request-ID": {}}, "content": {"application/json": {"schema": schema}}}}


def small() -> Document:
    """An API of one call, with a part of each kind."""
    request = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id"],
        "properties": {
            "id": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "maxLength": 128}]},
            "kind": {"$ref": "#/components/schemas/Kind"},
            "limit": {"type": "integer", "maximum": 100},
            "title": {"type": ["string", "null"], "description": "A field may be called so."},
            "tags": {"type": "array", "items": {"type": "string"}},
            "rows": {
                "type": "array",
                "items": {"anyOf": [{"$ref": "#/components/schemas/Row"}, {"type": "object"}]},
            },
        },
    }
    reply = {
        "type": "object",
        "required": ["state", "at"],
        "properties": {
            "state": {"enum": ["stored", "known"], "type": "string"},
            "at": {"type": "string", "format": "date-time"},
            "inner": {"$ref": "#/components/schemas/Reply"},
        },
    }
    call = {
        "security": [{"key": []}, {}],
        "parameters": [{"name": "after", "in": "query", "schema": {"type": "string"}}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}},
        },
        "responses": answer("200", {"$ref": "#/components/schemas/Reply"})
        | answer("404", {"$ref": "#/components/schemas/Reply"}),
    }
    row = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
    schemas = {
        "Kind": {"enum": ["like", "pass"], "type": "string"},
        "Request": request,
        "Reply": reply,
        "Row": row,
    }
    return copy.deepcopy({"paths": {"/v1/a": {"post": call}, "/health": {}}, "components": {"schemas": schemas}})


def call(of: Document) -> Any:
    return of["paths"]["/v1/a"]["post"]


def fields(of: Document, schema: str = "Request") -> Any:
    return of["components"]["schemas"][schema]["properties"]


BREAKING: dict[str, Change] = {
    "`POST /v1/a` is gone.": lambda new: new["paths"].pop("/v1/a"),
    "`POST /v1/a` now asks for a key.": lambda new: call(new)["security"].pop(),
    "`POST /v1/a` no longer answers 404.": lambda new: call(new)["responses"].pop("404"),
    "`POST /v1/a`, answer 200 has lost the header `X-Request-ID`.": lambda new: call(new)["responses"]["200"][
        "headers"
    ].clear(),
    "`POST /v1/a`, query parameter `after` is gone.": lambda new: call(new)["parameters"].clear(),
    "`POST /v1/a`, query parameter `more` is now required.": lambda new: call(new)["parameters"].append(
        {"name": "more", "in": "query", "required": True, "schema": {"type": "string"}}
    ),
    "`POST /v1/a`, query parameter `after` no longer takes `string`.": lambda new: call(new)["parameters"][0].update(
        schema={"type": "integer"}
    ),
    "`POST /v1/a`, request, field `limit` is gone.": lambda new: fields(new).pop("limit"),
    "`POST /v1/a`, request, field `limit` is now required.": lambda new: new["components"]["schemas"]["Request"][
        "required"
    ].append("limit"),
    "`POST /v1/a`, request, field `id` no longer takes `string`.": lambda new: fields(new)["id"]["anyOf"].pop(),
    "`POST /v1/a`, request, field `id` has the `minimum` 2 now, and had 1.": lambda new: fields(new)["id"]["anyOf"][
        0
    ].update(minimum=2),
    "`POST /v1/a`, request, field `limit` has the `maximum` 50 now, and had 100.": lambda new: fields(new)[
        "limit"
    ].update(maximum=50),
    "`POST /v1/a`, request, field `title` no longer takes `null`.": lambda new: fields(new)["title"].update(
        type="string"
    ),
    "`POST /v1/a`, request, field `title` has the `pattern` `a+` now, and had `none`.": lambda new: fields(new)[
        "title"
    ].update(pattern="a+", type=["string", "null"]),
    "`POST /v1/a`, request, field `tags`, an item no longer takes `string`.": lambda new: fields(new)["tags"].update(
        items={"type": "integer"}
    ),
    "`POST /v1/a`, request, field `kind` no longer takes `pass`.": lambda new: new["components"]["schemas"][
        "Kind"
    ].update(enum=["like"]),
    "`POST /v1/a`, request, field `rows`, an item, field `id` is gone.": lambda new: fields(new, "Row").clear(),
    "`POST /v1/a`, answer 200, field `state` is gone.": lambda new: fields(new, "Reply").pop("state"),
    "`POST /v1/a`, answer 200, field `at` may now be absent.": lambda new: new["components"]["schemas"]["Reply"][
        "required"
    ].remove("at"),
    "`POST /v1/a`, answer 200, field `at` may now be `null`.": lambda new: fields(new, "Reply")["at"].update(
        type=["string", "null"]
    ),
    "`POST /v1/a`, answer 200, field `at` was of the format `date-time` and is of `date`.": lambda new: fields(
        new, "Reply"
    )["at"].update(format="date"),
}


@pytest.mark.parametrize("sentence", BREAKING)
def test_what_breaks_a_client_is_told_in_a_sentence(sentence: str) -> None:
    new = small()
    BREAKING[sentence](new)
    assert sentence in breaks(essence(small()), new)


ADDITIONS: dict[str, Change] = {
    "a path": lambda new: new["paths"].update({"/v1/b": {"get": call(new)}}),
    "a page outside v1 that goes": lambda new: new["paths"].pop("/health"),
    "an optional field": lambda new: fields(new).update(more={"type": "string"}),
    "an optional parameter": lambda new: call(new)["parameters"].append(
        {"name": "more", "in": "query", "schema": {"type": "string"}}
    ),
    "a field that need not be sent": lambda new: new["components"]["schemas"]["Request"]["required"].clear(),
    "a value that a request may say": lambda new: new["components"]["schemas"]["Kind"]["enum"].append("block"),
    "a wider bound": lambda new: fields(new)["limit"].update(maximum=200),
    "a type that a request may send": lambda new: fields(new)["limit"].update(type=["integer", "null"]),
    "a number where a whole number was due": lambda new: fields(new)["limit"].update(type="number"),
    "a field of an answer": lambda new: fields(new, "Reply").update(more={"type": "string"}),
    "a value of an answer": lambda new: fields(new, "Reply")["state"]["enum"].append("late"),
    "a status": lambda new: call(new)["responses"].update(answer("409", {"type": "object"})),
    "other words": lambda new: fields(new)["title"].update(description="Another sentence."),
    "another name of a schema": lambda new: (
        new["components"]["schemas"].update(Deed=new["components"]["schemas"].pop("Kind")),
        fields(new).update(kind={"$ref": "#/components/schemas/Deed"}),
    ),
}


@pytest.mark.parametrize("addition", ADDITIONS)
def test_what_is_added_breaks_nobody(addition: str) -> None:
    new = small()
    ADDITIONS[addition](new)
    assert breaks(essence(small()), new) == []


def test_the_snapshot_takes_what_was_added_and_stays_where_a_client_would_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "v1.json"
    monkeypatch.setattr(snapshot, "SNAPSHOT", file)
    older = essence(document())
    older["paths"].pop("/v1/people:batch")
    file.write_text(json.dumps(older))
    assert snapshot.main() == 0
    assert snapshot.kept() == json.loads(json.dumps(essence(document())))
    more = essence(document())
    more["paths"]["/v1/gone"] = more["paths"]["/v1/people:batch"]
    file.write_text(json.dumps(more))
    assert snapshot.main() == 1
    assert "`POST /v1/gone` is gone." in capsys.readouterr().err
    assert "/v1/gone" in snapshot.kept()["paths"]
