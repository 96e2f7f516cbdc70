"""Tells which changes of the OpenAPI document would break a client of v1.

A client may rely on what the snapshot holds: every call, what it takes, and what it answers. The service may take more
and answer more: a new call, an optional field, a new field, status or value of an answer break nobody.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

Json = Mapping[str, Any]

_SAID: Final = {"description", "summary", "title", "example", "examples", "tags", "default", "discriminator"}
_LOWER_BOUNDS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def essence(document: Json) -> dict[str, Any]:
    """Return what clients of v1 rely on: the calls below `/v1/`, and the schemas, without words and examples."""
    return {
        "paths": {path: _bare(calls) for path, calls in document["paths"].items() if path.startswith("/v1/")},
        "components": {"schemas": _bare_by_name(document["components"]["schemas"])},
    }


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _bare_by_name(inner) if name in {"properties", "headers"} else _bare(inner)
        for name, inner in value.items()
        if name not in _SAID
    }


def _bare_by_name(named: Json) -> dict[str, Any]:
    # Here the keys are names that we gave: a field may be called `title`.
    return {name: _bare(inner) for name, inner in named.items()}


def breaks(old: Json, new: Json) -> list[str]:
    """Return a sentence for each change from `old` to `new` that breaks a client; each is a document or an essence."""
    return [sentence for path, calls in old["paths"].items() for sentence in _broken_path(path, calls, old, new)]


def _broken_path(path: str, calls: Json, old: Json, new: Json) -> Iterator[str]:
    for method, call in calls.items():
        where = f"`{method.upper()} {path}`"
        there = new["paths"].get(path, {}).get(method)
        if there is None:
            yield f"{where} is gone."
            continue
        yield from _broken_parameters(where, call, there, _Comparison(old, new))
        yield from _broken_body(where, call, there, _Comparison(old, new))
        yield from _broken_answers(where, call, there, _Comparison(old, new))
        if {} in call.get("security", [{}]) and {} not in there.get("security", [{}]):
            yield f"{where} now asks for a key."


def _broken_parameters(where: str, old: Json, new: Json, comparison: "_Comparison") -> Iterator[str]:
    before, after = (
        {(parameter["in"], parameter["name"].lower()): parameter for parameter in call.get("parameters", [])}
        for call in (old, new)
    )
    for key, parameter in before.items():
        name = f"{where}, {key[0]} parameter `{parameter['name']}`"
        if key not in after:
            yield f"{name} is gone."
        else:
            yield from comparison.narrowed(parameter["schema"], after[key]["schema"], name)
    for key, parameter in after.items():
        if parameter.get("required") and not before.get(key, {}).get("required"):
            yield f"{where}, {key[0]} parameter `{parameter['name']}` is now required."


def _broken_body(where: str, old: Json, new: Json, comparison: "_Comparison") -> Iterator[str]:
    before, after = old.get("requestBody"), new.get("requestBody")
    if after is not None and after.get("required") and not (before or {}).get("required"):
        yield f"{where} now requires a body."
    for kind, content in (before or {"content": {}})["content"].items():
        there = (after or {"content": {}})["content"].get(kind)
        if there is None:
            yield f"{where} no longer takes a body of `{kind}`."
        else:
            yield from comparison.narrowed(content["schema"], there["schema"], f"{where}, request")


def _broken_answers(where: str, old: Json, new: Json, comparison: "_Comparison") -> Iterator[str]:
    for status, answer in old["responses"].items():
        there = new["responses"].get(status)
        if there is None:
            yield f"{where} no longer answers {status}."
            continue
        for header in answer.get("headers", {}):
            if header not in there.get("headers", {}):
                yield f"{where}, answer {status} has lost the header `{header}`."
        for kind, content in answer.get("content", {}).items():
            if kind not in there.get("content", {}):
                yield f"{where}, answer {status} is no longer `{kind}`."
            else:
                found = there["content"][kind]["schema"]
                yield from comparison.changed(content["schema"], found, f"{where}, answer {status}")


class _Comparison:
    """Compares a schema of the old document with one of the new."""

    def __init__(self, old: Json, new: Json) -> None:
        self._old, self._new = old["components"]["schemas"], new["components"]["schemas"]
        # A schema may hold itself, and need be compared once only.
        self._seen: set[tuple[str, str, str]] = set()

    def narrowed(self, old: Json, new: Json, where: str) -> list[str]:
        """Return what a request said by `old` and may no longer say by `new`."""
        if self._repeated("request", old, new):
            return []
        return [
            sentence
            for before in _variants(old, self._old)
            for sentence in _closest(before, list(_variants(new, self._new)), where, "no longer takes", self._narrower)
        ]

    def changed(self, old: Json, new: Json, where: str) -> list[str]:
        """Return what an answer says by `new` that nobody expects who knows `old`."""
        if self._repeated("answer", old, new):
            return []
        return [
            sentence
            for after in _variants(new, self._new)
            for sentence in _closest(
                after,
                list(_variants(old, self._old)),
                where,
                "may now be",
                lambda found, known, place: self._different(known, found, place),
            )
        ]

    def _repeated(self, side: str, old: Json, new: Json) -> bool:
        pair = (side, old.get("$ref", ""), new.get("$ref", ""))
        if not pair[1] or not pair[2]:
            return False
        repeated = pair in self._seen
        self._seen.add(pair)
        return repeated

    def _narrower(self, old: Json, new: Json, where: str) -> list[str]:
        found = list(_bounds(old, new, where))
        values = _values(new)
        if values is not None:
            gone = [value for value in _values(old) or () if value not in values]
            found += [f"{where} no longer takes {_literal(value)}." for value in gone]
            if _values(old) is None:
                found.append(f"{where} takes only {', '.join(map(_literal, values))} now.")
        if "items" in old and "items" in new:
            found += self.narrowed(old["items"], new["items"], f"{where}, an item")
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            if name in after:
                found += self.narrowed(schema, after[name], _field(where, name))
            else:
                found.append(f"{_field(where, name)} is gone.")
        required = set(new.get("required", ())) - set(old.get("required", ()))
        found += [f"{_field(where, name)} is now required." for name in sorted(required)]
        others, taken = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if others is not False and taken is False:
            found.append(f"{where} no longer takes fields of any name.")
        elif isinstance(others, dict) and isinstance(taken, dict):
            found += self.narrowed(others, taken, f"{where}, a field of any name")
        return found

    def _different(self, old: Json, new: Json, where: str) -> list[str]:
        found = []
        if old.get("format") != new.get("format"):
            found.append(f"{where} was of the format `{old.get('format')}` and is of `{new.get('format')}`.")
        if _values(old) is not None and _values(new) is None:
            found.append(f"{where} is no longer one of {', '.join(map(_literal, _values(old) or ()))}.")
        if "items" in old and "items" in new:
            found += self.changed(old["items"], new["items"], f"{where}, an item")
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            place = _field(where, name)
            if name not in after:
                found.append(f"{place} is gone.")
                continue
            if name in old.get("required", ()) and name not in new.get("required", ()):
                found.append(f"{place} may now be absent.")
            found += self.changed(schema, after[name], place)
        others, given = old.get("additionalProperties"), new.get("additionalProperties")
        if isinstance(others, dict) and isinstance(given, dict):
            found += self.changed(others, given, f"{where}, a field of any name")
        return found


def _variants(schema: Json, schemas: Json) -> Iterator[Json]:
    """Yield the schemas of one type each that a schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from ({"named": name, **found} for found in _variants(schemas[name], schemas))
    elif "allOf" in schema and len(schema["allOf"]) == 1:
        yield from _variants(schema["allOf"][0], schemas)
    elif "anyOf" in schema or "oneOf" in schema:
        for choice in schema.get("anyOf", schema.get("oneOf", ())):
            yield from _variants(choice, schemas)
    elif isinstance(schema.get("type"), list):
        for kind in schema["type"]:
            yield {**schema, "type": kind}
    else:
        yield schema


def _closest(
    one: Json,
    others: Sequence[Json],
    where: str,
    lost: str,
    compare: Callable[[Json, Json, str], list[str]],
) -> list[str]:
    """Return how `one` differs from the most similar of `others`; nothing where it equals any of them."""
    # A row of a batch may be anything, and is refused alone: what it should be is held to its name.
    namesakes = [other for other in others if "named" in one and one["named"] == other.get("named")]
    alike = [compare(one, other, where) for other in namesakes or others if _same_type(one, other)]
    return min(alike, key=len, default=[f"{where} {lost} `{one.get('type', 'anything')}`."])


def _same_type(one: Json, other: Json) -> bool:
    types = (one.get("type"), other.get("type"))
    return None in types or types[0] == types[1] or types == ("integer", "number")


def _bounds(old: Json, new: Json, where: str) -> Iterator[str]:
    for name in _LOWER_BOUNDS:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{where} has the `{name}` {new[name]} now, and had {old.get(name, 'none')}."
    for name in _UPPER_BOUNDS:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{where} has the `{name}` {new[name]} now, and had {old.get(name, 'none')}."
    for name in ("pattern", "format", "uniqueItems"):
        if new.get(name) and new[name] != old.get(name):
            yield f"{where} has the `{name}` `{new[name]}` now, and had {_literal(old.get(name, 'none'))}."


def _values(schema: Json) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _field(where: str, name: str) -> str:
    return f"{where}, field `{name}`"


def _literal(value: object) -> str:
    return f"`{value}`"
