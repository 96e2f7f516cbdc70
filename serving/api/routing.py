"""Finds the call that a request asks for: by its path as it stands, else by a path with parameters in it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from serving.errors import InvalidRequest, UnknownPath, WrongMethod


@dataclass(frozen=True)
class ApiRoute:
    """One call: `operation` is its name in the OpenAPI document, `body` or `query` what it takes.

    `named` is the body of those who name people by text. A part of `path` in braces is a parameter. A `large`
    body may have more bytes than others, and is parsed on a thread; a `batch` is large, and may take longer. `ids` is a
    field that may hold so many ids.
    """

    method: str
    path: str
    operation: str
    body: type[BaseModel] | None = None
    batch: bool = False
    large: bool = False
    query: type[BaseModel] | None = None
    named: type[BaseModel] | None = None
    ids: tuple[str, int] | None = None


@dataclass(frozen=True)
class MatchedCall:
    """A route, and the parameters that a path has for it, in order."""

    route: ApiRoute
    parameters: tuple[str, ...] = field(default=())


class Routes:
    """The calls of a service; `pages` are the paths beside them that can be read."""

    def __init__(self, routes: Iterable[ApiRoute], pages: Collection[str] = ()) -> None:
        self._pages = pages
        self._plain: dict[tuple[str, str], MatchedCall] = {}
        self._patterns: list[tuple[ApiRoute, list[str]]] = []
        for route in routes:
            if "{" in route.path:
                self._patterns.append((route, route.path.split("/")))
            else:
                self._plain[route.method, route.path] = MatchedCall(route)

    def find(self, scope: Mapping[str, Any]) -> MatchedCall | None:
        """Return the call of a request, None where it is none."""
        method, path = scope["method"], scope["path"]
        found = self._plain.get((method, path))
        if found is not None or not path.startswith("/v1/"):
            return found
        parts = _parts(scope)
        for route, pattern in self._patterns:
            if route.method == method and _fits(pattern, parts):
                return MatchedCall(
                    route, tuple(_decoded(part, of) for part, of in zip(parts, pattern, strict=True) if "{" in of)
                )
        return None

    def refuse(self, scope: Mapping[str, Any]) -> None:
        """Raise where a request that is no call was nearly one.

        WrongMethod where its path is one of ours, with other methods than its own; UnknownPath where it would be one
        without the slash at its end.
        """
        path, parts = scope["path"], _parts(scope)
        methods = self._methods(path, parts)
        if methods:
            wanted = f"`{'` or `'.join(methods)}`"
            raise WrongMethod(
                f"`{scope['method']}` is not a method of this path: send {wanted}.",
                [{"field": "method", "message": f"must be {wanted}"}],
                allowed=methods,
            )
        if len(path) > 1 and path.endswith("/"):
            trimmed = path[:-1]
            if trimmed in self._pages or self._methods(trimmed, parts[:-1]):
                why = "must not end with a slash"
                raise UnknownPath(f"There is nothing at this path: it {why}.", [{"field": "path", "message": why}])

    def _methods(self, path: str, parts: list[str]) -> list[str]:
        return sorted(
            {method for method, plain in self._plain if plain == path}
            | {route.method for route, pattern in self._patterns if _fits(pattern, parts)}
        )


def _parts(scope: Mapping[str, Any]) -> list[str]:
    # Parts are cut before they are decoded: an id may hold a slash.
    raw = scope.get("raw_path")
    text: str = scope["path"] if raw is None else raw.decode("latin-1")
    return text.split("/")


def _decoded(part: str, of: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        # Put in the place of such bytes, one character would make one person of two.
        field, why = of.strip("{}"), "must be percent-encoded in UTF-8"
        raise InvalidRequest(
            f"The request is not valid: `{field}` {why}.", [{"field": field, "message": why}]
        ) from None


def _fits(pattern: list[str], parts: list[str]) -> bool:
    return len(pattern) == len(parts) and all(
        bool(part) if "{" in of else part == of for of, part in zip(pattern, parts, strict=True)
    )
