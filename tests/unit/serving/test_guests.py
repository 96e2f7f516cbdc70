import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.cache.answer_cache import AnswerCache
from serving.errors import InvalidRequest
from serving.profiles.guests import GuestRequest
from serving.recommend.answers import Answer
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town, people_of, person
from tests.serving_world import GHENT, load_town, write_artifacts

WOMAN = {"gender": "woman", "seeking": ["man"], "birth_date": "1995-01-01", "latitude": GHENT[0], "longitude": GHENT[1]}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, release=release, attributes=lambda user_id: {"children": user_id % 3})


def ask(town: Town, guest: dict[str, Any] | None = None, **request: Any) -> Answer:
    body = json.dumps({"guest": WOMAN if guest is None else guest, **request})
    return asyncio.run(town.unlogged().for_guest(GuestRequest.model_validate_json(body), uuid4()))


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
def test_a_guest_is_shown_whom_they_seek_and_who_seeks_them_at_every_level(town: Town, level: int) -> None:
    town.people.rows[2] = person(2, age_max=20)
    town.population = town.population and town.population.upsert(people_of([town.people.rows[2]]))
    town.people.hidden = {4}
    answer = ask(at_level(town, level), limit=100)
    assert answer.level == level
    assert ids(answer) == list(range(6, 41, 2))


def test_a_guest_gets_the_order_of_the_ranker_by_the_factors_of_their_profile(town: Town) -> None:
    answer = ask(town, limit=5)
    assert (answer.level, answer.order, answer.variant) == (1, "ranker", "champion")
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert answer.items[0].user_id >= 30  # everybody prefers high ids in this town


def test_whom_a_guest_liked_passed_on_or_excludes_is_not_shown(town: Town) -> None:
    answer = ask(town, liked=[40, 38], passed=[36], exclude=[34], limit=100)
    assert ids(answer) == list(range(2, 33, 2))


def test_pages_of_a_guest_name_nobody_twice(town: Town) -> None:
    first = ask(town, limit=8)
    second = ask(town, limit=8, cursor=first.next)
    assert len({*ids(first), *ids(second)}) == 16


def test_a_filter_narrows_what_a_guest_sees(town: Town) -> None:
    answer = ask(town, limit=100, filters={"attributes": {"children": {"in": [0]}}})
    assert ids(answer) == list(range(6, 41, 6))


def test_nothing_of_a_guest_is_logged_or_kept(town: Town, settings: Settings, clock: FixedClock) -> None:
    town.cache = AnswerCache(settings, clock, serving_metrics(), lambda: 0.5)
    for _ in range(2):
        answer = ask(town)
        assert answer.items
        assert not answer.cached
    assert (town.impressions, town.answers, len(town.cache.flights._flying)) == ([], [], 0)
    assert "requester" not in town.people.asked  # nor is anybody looked up


def test_without_postgres_a_guest_is_shown_nobody_and_told_why(town: Town) -> None:
    town.people.down = True
    answer = ask(town)
    assert (answer.level, answer.items, answer.reason) == (4, [], "eligibility_unavailable")


@pytest.mark.parametrize(
    ("guest", "field"),
    [
        ({"age_min": 40, "age_max": 30}, "guest.age_min"),
        ({"age_min": 17}, "guest.age_min"),
        ({"latitude": 50.0}, "guest.longitude"),
        ({"birth_date": "2020-01-01"}, "guest.birth_date"),
        ({"attributes": {"x": "\u0000"}}, "guest.attributes"),
    ],
)
def test_a_guest_is_judged_by_the_rules_of_an_import(town: Town, guest: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(town, guest)
    assert refused.value.details[0]["field"] == field
