"""Which call a request asks for, and that the document, the gate and the service know the same ones."""

from types import SimpleNamespace
from typing import Any

import pytest

from infra.clock import SystemClock
from serving.api.calls import RECOMMEND, RECOMMEND_ALL, ROUTES, STORE_INTERACTION
from serving.api.list_calls import list_calls
from serving.api.openapi_calls import SAID
from serving.api.routing import ApiRoute, Routes
from serving.api.store_calls import store_calls
from serving.errors import InvalidRequest, UnknownPath, WrongMethod
from serving.resilience.deadline import Deadline

FOUND = Routes(
    [
        ApiRoute("POST", "/v1/things", "make"),
        ApiRoute("GET", "/v1/things/{thing}", "get"),
        ApiRoute("POST", "/v1/things/{thing}/hide", "hide"),
    ]
)


def scope(method: str, path: str, raw: str | None = None) -> dict[str, Any]:
    return {"method": method, "path": path, "raw_path": raw.encode() if raw is not None else None}


@pytest.mark.parametrize(
    ("asked", "operation", "parameters"),
    [
        (scope("POST", "/v1/things"), "make", ()),
        (scope("GET", "/v1/things/7"), "get", ("7",)),
        (scope("GET", "/v1/things/a/b", "/v1/things/a%2Fb"), "get", ("a/b",)),
        (scope("POST", "/v1/things/é/hide", "/v1/things/%C3%A9/hide"), "hide", ("é",)),
    ],
)
def test_a_path_is_cut_into_parameters_before_they_are_decoded(
    asked: dict[str, Any], operation: str, parameters: tuple[str, ...]
) -> None:
    found = FOUND.find(asked)
    assert found is not None
    assert (found.route.operation, found.parameters) == (operation, parameters)


@pytest.mark.parametrize("name", ["Jos%E9", "%FF", "%ED%A0%80"])
def test_a_parameter_that_is_not_utf_8_is_refused_lest_two_names_become_one(name: str) -> None:
    with pytest.raises(InvalidRequest, match="`thing` must be percent-encoded in UTF-8") as refused:
        FOUND.find(scope("GET", "/v1/things/?", f"/v1/things/{name}"))
    assert refused.value.details[0]["field"] == "thing"


@pytest.mark.parametrize("path", ["/v1/things//", "/v1/things//hide", "/v1/other", "/v1/things/7/8", "/things/7"])
def test_another_path_is_no_call(path: str) -> None:
    assert FOUND.find(scope("GET", path)) is None
    FOUND.refuse(scope("GET", path))


def test_a_path_of_ours_with_another_method_is_refused_with_its_own_methods() -> None:
    with pytest.raises(WrongMethod, match="send `GET`") as refused:
        FOUND.refuse(scope("PUT", "/v1/things/7"))
    assert refused.value.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["/v1/things/", "/v1/things/7/"])
def test_a_slash_too_many_is_refused_by_its_name(path: str) -> None:
    with pytest.raises(UnknownPath, match="must not end with a slash"):
        FOUND.refuse(scope("GET", path))


def test_every_route_is_described_and_answered() -> None:
    operations = {route.operation for route in ROUTES}
    assert operations == SAID.keys()
    runtime: Any = SimpleNamespace()
    answered = store_calls(runtime).keys() | list_calls(runtime, lambda _call: Deadline(0.0, SystemClock())).keys()
    assert operations == answered | {RECOMMEND, RECOMMEND_ALL, STORE_INTERACTION}
