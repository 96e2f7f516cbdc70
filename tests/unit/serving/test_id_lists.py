import json
from typing import Any

import numpy as np
import pytest

from serving.api.calls import ROUTES
from serving.api.id_lists import without_list
from serving.api.recommendation_models import MAX_EXCLUDED, NamedRecommendationRequest, RecommendationRequest
from serving.api.request_checks import parsed
from serving.errors import ApiError

ROUTE = next(route for route in ROUTES if route.path == "/v1/recommendations")
MANY = list(range(10**8, 10**8 + 200))
LARGEST = 2**63 - 1


def asked(**body: Any) -> RecommendationRequest:
    found = parsed(ROUTE, json.dumps(body).encode())
    assert isinstance(found, RecommendationRequest)
    return found


@pytest.mark.parametrize("indent", [None, 2])
def test_a_long_list_of_ids_is_what_the_body_says_and_the_rest_of_it_stays(indent: int | None) -> None:
    body = json.dumps({"user_id": 1, "exclude": MANY, "limit": 7}, indent=indent).encode()
    cut = without_list(body, "exclude", MAX_EXCLUDED)
    assert cut is not None
    assert json.loads(cut[0]) == {"user_id": 1, "exclude": [], "limit": 7}
    assert cut[1].tolist() == MANY


@pytest.mark.parametrize("exclude", [[], [7], MANY, [*MANY, LARGEST], [*MANY, *MANY], None])
def test_a_request_excludes_the_same_people_however_its_list_was_read(exclude: list[int] | None) -> None:
    found = asked(user_id=1, exclude=exclude).exclude
    if exclude is None:
        assert found is None
    else:
        assert found is not None
        assert found.dtype == np.int64
        assert found.tolist() == exclude


def test_who_asks_by_text_may_exclude_by_number() -> None:
    found = asked(user_id="ann", exclude=MANY)
    assert isinstance(found, NamedRecommendationRequest)
    assert list(found.exclude or []) == MANY


@pytest.mark.parametrize(
    "wrong",
    [0, -1, LARGEST + 1, 1.5, True, None, [7], {}, "", "a\tb", "x" * 129, "0", "007", str(LARGEST + 1)],
    ids=repr,
)
def test_one_wrong_id_among_many_is_refused_with_its_place(wrong: object) -> None:
    with pytest.raises(ApiError) as refused:
        asked(user_id=1, exclude=[*MANY, wrong])
    assert refused.value.details[0]["field"] == f"exclude.{len(MANY)}"
    with pytest.raises(ApiError) as refused:
        asked(user_id="ann", exclude=[*map(str, MANY), wrong])
    assert refused.value.details[0]["field"] == f"exclude.{len(MANY)}"


def test_more_ids_than_a_request_may_have_are_refused() -> None:
    with pytest.raises(ApiError, match="exclude"):
        asked(user_id=1, exclude=list(range(1, MAX_EXCLUDED + 2)))


@pytest.mark.parametrize(
    "text",
    [
        '{{"user_id": 1, "exclude": [{ids},]}}',
        '{{"user_id": 1, "exclude": [{ids}}}',
        '{{"user_id": 1, "exclude": [01, {ids}]}}',
        '{{"user_id": 1, "exclude": [{ids}], "exclude": [{ids}]}}',
        '{{"user_id": 1, "\\u0065xclude": [7], "filters": {{"exclude": [{ids}]}}}}',
        '{{"user_id": 1, "filters": {{"exclude": [{ids}]}}}}',
        '{{"user_id": 1, "cursor": "\\"exclude", "x": [{ids}]}}',
        '{{"user_id": 1, "exclude": [{ids}], "limit": 0}}',
    ],
)
def test_a_body_that_is_wrong_is_refused_as_if_its_list_were_short(text: str) -> None:
    def refusal(ids: list[int]) -> tuple[str, list[str]]:
        with pytest.raises(ApiError) as refused:
            parsed(ROUTE, text.format(ids=", ".join(map(str, ids))).encode())
        return refused.value.code, [detail["field"] for detail in refused.value.details]

    assert refusal(MANY) == refusal([7])
