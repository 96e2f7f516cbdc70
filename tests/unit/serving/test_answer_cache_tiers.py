import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.release import Release
from serving.cache.entry import Entry
from serving.cache.memory import PER_PERSON, MemoryTier
from serving.reasons import Level
from serving.recommend.pool import KnownRequester
from tests.cached_towns import HARMS, LATER, FakeRedis, ask, ids, twice, two_workers, with_cache
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import START, load_town, write_artifacts


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return with_cache(make_town(settings, clock, n=100, release=release))


def entry(user_id: int, expires_at: float, town: Town) -> Entry:
    assert town.population is not None
    person = town.population.rows(town.population.positions([user_id]))
    nobody = person.user_ids[:0]
    asker = KnownRequester(user_id, person, nobody, nobody, nobody, version=3, updated_at=START)
    items = tuple(asyncio.run(ask(town.recommender())).items)
    return Entry(asker, Level.FULL, "e1-i1-r1", "ranker", items, (1.0,) * len(items), START, 0.0, expires_at)


def test_memory_is_bounded_and_counts_what_it_pushes_out(town: Town, clock: FixedClock) -> None:
    memory = MemoryTier(5, clock, serving_metrics())
    pushed = serving_metrics().cache_evictions._value.get()
    kept = replace(entry(1, 0, town), at=clock.now().timestamp(), expires_at=clock.now().timestamp() + 60)
    for user_id in range(12):
        memory.put(user_id, "a", kept)
    assert len(memory) == 5
    assert serving_metrics().cache_evictions._value.get() == pushed + 7
    assert memory.get(11, "a") is kept
    assert memory.get(0, "a") is None
    memory.drop(11)
    assert memory.get(11, "a") is None
    clock.advance(61)
    assert memory.get(10, "a") is None


def test_one_person_cannot_fill_the_memory(town: Town, clock: FixedClock) -> None:
    memory = MemoryTier(100, clock, serving_metrics())
    kept = replace(entry(1, 0, town), at=clock.now().timestamp(), expires_at=clock.now().timestamp() + 60)
    for number in range(30):
        memory.put(1, str(number), kept)
    assert len(memory) == PER_PERSON
    assert memory.get(1, "29") is kept
    assert memory.get(1, "0") is None


def test_an_answer_survives_json_to_the_last_bit(town: Town) -> None:
    before = entry(1, 1000.0, town)
    after = Entry.from_json(before.to_json(), 1)
    assert after.items == before.items
    assert after.user_ids.tolist() == before.user_ids.tolist()
    assert after.requester.person.profile.tobytes() == before.requester.person.profile.tobytes()
    assert (after.requester.version, after.requester.updated_at) == (3, START)
    assert (after.level, after.order, after.since, after.expires_at) == (Level.FULL, "ranker", START, 1000.0)


@given(st.data())
@property_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_kept_answer_is_refused(town: Town, data: st.DataObject) -> None:
    body = bytearray(entry(1, 1000.0, town).to_json())
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = data.draw(st.sampled_from([bytes(body[:at]), bytes(body[:at]) + b"\x00" + bytes(body[at + 1 :])]))
    with pytest.raises(ValueError, match=r"."):
        Entry.from_json(damaged, 1)


def test_an_answer_of_somebody_else_is_refused(town: Town) -> None:
    with pytest.raises(ValueError, match="person 2"):
        Entry.from_json(entry(1, 1000.0, town).to_json(), 2)


def test_another_worker_shows_what_redis_keeps(town: Town) -> None:
    first, second = two_workers(town, FakeRedis())
    assert (first.cached, second.cached) == (False, True)
    assert second.items == first.items


def test_a_stale_list_in_redis_never_shows_whoever_may_not_be_shown(town: Town) -> None:
    redis = FakeRedis()

    def harm() -> None:
        town.people.hidden.add(100)
        town.people.update(98, LATER, seeking=["man"])
        town.people.rows.pop(96, None)

    first, second = two_workers(town, redis, harm)
    assert {100, 98, 96} <= set(ids(first))
    assert second.cached
    assert not {100, 98, 96} & set(ids(second))
    assert len(second.items) == 10


@pytest.mark.parametrize("trouble", ["down", "slow"])
def test_without_redis_answers_are_made(town: Town, trouble: str) -> None:
    town.settings = town.settings.model_copy(
        update={"serving": town.settings.serving.model_copy(update={"deadline_ms": 500})}
    )
    first, second = two_workers(town, FakeRedis(**{trouble: True}))
    assert [(answer.level, answer.cached) for answer in (first, second)] == [(1, False)] * 2


def test_what_redis_keeps_of_another_shape_is_a_miss(town: Town) -> None:
    redis = FakeRedis()

    def damage() -> None:
        redis.kept = dict.fromkeys(redis.kept, b'{"format": 0}')

    first, second = two_workers(town, redis, damage)
    assert (second.cached, second.items) == (False, first.items)


PEOPLE = range(62, 101, 2)
CHANGES = st.lists(
    st.tuples(st.sampled_from([*HARMS, "decided", "separated", "none"]), st.sampled_from(PEOPLE)), max_size=12
)


@given(changes=CHANGES, restarted=st.booleans())
@property_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_in_between_nobody_unsafe_is_ever_shown(
    settings: Settings, clock: FixedClock, release: Release, changes: list[tuple[str, int]], *, restarted: bool
) -> None:
    town = with_cache(make_town(settings, clock, n=100, release=release))
    redis = FakeRedis()
    unsafe = set[int]()

    def happen() -> None:
        for harm, other in changes:
            if harm == "none" or other not in town.people.rows:
                continue
            unsafe.add(other)
            if harm == "decided":
                town.people.decided.setdefault(1, set()).add(other)
            elif harm == "separated":
                town.people.separated.add(frozenset({1, other}))
            else:
                HARMS[harm](town, other)

    if restarted:
        happened = iter([happen, lambda: None])
        _, answer = two_workers(town, redis, lambda: next(happened)())  # noqa: PLW0108 another one each time
    else:
        answer = twice(town, happen)[1]
    assert not unsafe & set(ids(answer))
    assert len(answer.items) == 10
    assert answer.level == 1
    assert UUID(int=0) != answer.request_id
