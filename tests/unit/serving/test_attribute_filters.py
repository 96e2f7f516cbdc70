import asyncio
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.api.recommendation_models import Filters, RecommendationRequest
from serving.cache.answer_cache import AnswerCache
from serving.errors import InvalidRequest
from serving.recommend.answers import Answer
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import load_town, write_artifacts

MANY = 6000


def attributes(user_id: int) -> dict[str, Any]:
    """Every tenth is 190 cm tall, the others 170; nothing but the children of whoever divides by four is known."""
    if not user_id % 4:
        return {"children": 0}
    height_cm, city = 190 if user_id % 10 == 0 else 170, ("Ghent", "Bruges", "true")[user_id % 3]
    return {"height_cm": height_cm, "children": user_id % 3, "city": city, "smoker": user_id % 10 == 0, "pets": user_id}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, n=100, release=release, attributes=attributes, without_slot=["pets"])


def ask(town: Town, wanted: dict[str, Any] | None, **request: Any) -> Answer:
    filters = None if wanted is None else Filters.model_validate({"attributes": wanted})
    asked = RecommendationRequest(user_id=1, filters=filters, **request)
    return asyncio.run(town.recommender().recommend(asked, uuid4()))


def ids(answer: Answer) -> list[int]:
    return sorted(item.user_id for item in answer.items)


def at_level(town: Town, level: int) -> Town:
    """Take away what the levels above need."""
    if level > 1:
        town.release = None
    if level > 2:
        town.population = None
    return town


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({"height_cm": {"gte": 180}}, [10, 30, 50, 70, 90]),
        ({"height_cm": {"gte": 190, "lte": 190}}, [10, 30, 50, 70, 90]),
        ({"height_cm": {"gte": 180}, "children": {"in": [0, 2]}}, [30, 50, 90]),
        ({"height_cm": {"lte": 180}, "children": {"in": [2]}}, [2, 14, 26, 38, 62, 74, 86, 98]),
        ({"height_cm": {"lte": 169.9}}, []),
        ({"smoker": {"is": True}}, [10, 30, 50, 70, 90]),
        ({"smoker": {"is": True}, "city": {"in": ["Ghent", "true"]}}, [30, 50, 90]),
        ({"smoker": {"is": False}, "city": {"in": ["true"]}}, [2, 14, 26, 38, 62, 74, 86, 98]),
        ({"city": {"in": ["Ghent"]}, "height_cm": {"gte": 180}, "children": {"in": [0]}}, [30, 90]),
        ({"city": {"in": ["ghent", "Gh", "Rome"]}}, []),
        ({"pets": {"gte": 85.5, "lte": 94}}, [86, 90, 94]),
        ({"pets": {"in": [8, 10, 30.0]}, "city": {"in": ["Ghent"]}, "height_cm": {"gte": 180}}, [30]),
    ],
)
def test_only_people_whose_attributes_are_as_asked_are_shown_at_every_level(
    town: Town, level: int, wanted: dict[str, Any], shown: list[int]
) -> None:
    answer = ask(at_level(town, level), wanted, limit=100)
    assert ids(answer) == shown
    assert answer.level == level


def test_somebody_whose_attribute_changed_meanwhile_is_not_shown(town: Town) -> None:
    town.people.rows[30]["attributes"] = {"height_cm": 170}
    assert ids(ask(town, {"height_cm": {"gte": 180}})) == [10, 50, 70, 90]
    town.people.rows[50]["attributes"] = {"smoker": "true", "height_cm": 190}
    assert ids(ask(town, {"smoker": {"is": True}})) == [10, 70, 90]


@pytest.mark.parametrize("wanted", [{"rare": {"in": [1]}}, {"sign": {"in": ["rare"]}}], ids=["number", "text"])
def test_a_selective_filter_fills_a_page_where_there_are_so_many(
    settings: Settings, clock: FixedClock, release: Release, wanted: dict[str, Any]
) -> None:
    one_in_a_hundred = make_town(
        settings,
        clock,
        n=MANY,
        release=release,
        attributes=lambda user_id: {"rare": int(user_id % 100 == 0), "sign": "rare" if user_id % 100 == 0 else "usual"},
    )
    answer = ask(one_in_a_hundred, wanted, limit=20)
    assert len(answer.items) == 20
    assert all(user_id % 100 == 0 for user_id in ids(answer))
    following = ask(one_in_a_hundred, wanted, limit=20, cursor=answer.next)
    assert len(following.items) == 20
    assert not set(ids(answer)) & set(ids(following))


def test_an_attribute_of_nobody_is_refused_with_the_nearest_name(town: Town) -> None:
    with pytest.raises(InvalidRequest, match="did you mean `height_cm`") as refused:
        ask(town, {"hight_cm": {"gte": 180}})
    assert refused.value.details[0]["field"] == "filters.attributes.hight_cm"
    with pytest.raises(InvalidRequest, match="there are `children`, `city`, `height_cm`, `pets`, `smoker`"):
        ask(town, {"zodiac": {"in": [1]}})


@pytest.mark.parametrize(
    ("wanted", "advice"),
    [
        ({"height_cm": {"in": ["tall"]}}, "holds numbers: ask with `gte`, `lte` or `in`"),
        ({"height_cm": {"is": True}}, "holds numbers"),
        ({"pets": {"is": True}}, "holds numbers"),
        ({"city": {"gte": 1}}, "holds text: ask with `in` and the texts"),
        ({"city": {"is": True}}, "holds text"),
        ({"smoker": {"in": ["yes"]}}, "holds true or false: ask with `is`"),
        ({"smoker": {"in": [1]}}, "holds true or false"),
    ],
)
def test_an_attribute_that_is_asked_for_what_it_does_not_hold_is_refused_with_what_it_holds(
    town: Town, wanted: dict[str, Any], advice: str
) -> None:
    (name,) = wanted
    with pytest.raises(InvalidRequest, match=f"`{name}` cannot be met: it {advice}") as refused:
        ask(town, wanted)
    assert refused.value.details[0]["field"] == f"filters.attributes.{name}"


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "height_cm"),
        ({"gte": 2, "lte": 1}, "height_cm"),
        ({"gte": "170"}, "gte"),
        ({"in": [1, "tall"]}, "height_cm"),
        ({"in": ["t\x00"]}, "in"),
        ({"in": ["t" * 1001]}, "in"),
        ({"in": ["tall"] * 101}, "in"),
        ({"in": ["tall"], "gte": 1}, "height_cm"),
        ({"in": [1e31]}, "in"),
        ({"is": True, "in": ["tall"]}, "height_cm"),
        ({"is": "yes"}, "is"),
        ({"is": 1}, "is"),
        ({"in": []}, "in"),
        ({"in": [True]}, "in"),
        ({"gt": 1}, "gt"),
        ({"lte": 1e300}, "lte"),
    ],
)
def test_a_wish_that_is_none_is_refused_with_its_field(wish: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        RecommendationRequest.model_validate({"user_id": 1, "filters": {"attributes": {"height_cm": wish}}})
    assert field in refused.value.errors()[0]["loc"]


def test_answers_are_kept_apart_by_the_attributes_that_are_asked_for(
    town: Town, settings: Settings, clock: FixedClock
) -> None:
    town.cache = AnswerCache(settings, clock, serving_metrics(), lambda: 0.5)
    tall, small = {"height_cm": {"gte": 180}}, {"height_cm": {"lte": 180}}
    first = ask(town, {**tall, "children": {"lte": 5}})
    assert not first.cached
    again = ask(town, {"children": {"lte": 5}, **tall})
    assert again.cached
    assert ids(again) == ids(first)
    other = ask(town, small)
    assert not other.cached
    assert not set(ids(other)) & set(ids(first))
