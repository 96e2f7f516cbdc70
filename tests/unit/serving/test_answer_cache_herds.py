import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog

from feature_repo.population.people import People
from infra.settings import Settings
from registry.release import Release
from serving.errors import EligibilityUnknown, FeaturesUnavailable, LevelUnavailable
from serving.reasons import Reason
from serving.recommend.answers import Answer
from serving.resilience.deadline import Deadline
from tests.cached_towns import ask, ids, with_cache
from tests.clocks import FixedClock
from tests.serving_fakes import MemoryFeatures, MemoryPeople, Town, make_town
from tests.serving_world import load_town, write_artifacts


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return with_cache(make_town(settings, clock, n=100, release=release))


class Counting(MemoryPeople):
    """Postgres that takes a moment to say who asks, so that a herd gathers."""

    async def requester(self, user_id: int, timeout_s: float, **how: Any) -> Any:
        found = await super().requester(user_id, timeout_s, **how)
        await asyncio.sleep(0.02)
        return found


@pytest.fixture
def slow_town(town: Town) -> Town:
    town.people = Counting(town.people.rows)
    return town


def test_a_herd_of_a_thousand_has_its_answer_made_once_and_checked_for_each(slow_town: Town) -> None:
    async def go() -> list[Answer]:
        recommender = slow_town.recommender()
        return await asyncio.gather(*(ask(recommender) for _ in range(1000)))

    answers = asyncio.run(go())
    assert slow_town.people.asked.count("requester") == 1
    assert slow_town.people.asked.count("standing") == 1000
    assert len({answer.request_id for answer in answers}) == 1000
    assert {tuple(ids(answer)) for answer in answers} == {tuple(ids(answers[0]))}
    assert [answer.cached for answer in answers].count(False) == 1
    assert len(slow_town.impressions) == 10_000


def test_when_whoever_began_gives_up_the_others_are_answered_all_the_same(slow_town: Town) -> None:
    async def go() -> list[Answer]:
        recommender = slow_town.recommender()
        leader = asyncio.create_task(ask(recommender))
        await asyncio.sleep(0)
        followers = [asyncio.create_task(ask(recommender)) for _ in range(5)]
        await asyncio.sleep(0.005)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        return await asyncio.gather(*followers)

    assert [len(answer.items) for answer in asyncio.run(go())] == [10] * 5
    assert slow_town.people.asked.count("requester") == 1


def test_one_whose_time_is_over_ends_nothing_for_the_others(slow_town: Town) -> None:
    async def go() -> tuple[Answer, Answer]:
        recommender = slow_town.recommender()
        others = asyncio.create_task(ask(recommender))
        await asyncio.sleep(0.002)
        hurried = await ask(recommender, deadline=Deadline.after(0.005, slow_town.clock))
        return hurried, await others

    hurried, other = asyncio.run(go())
    assert (hurried.level, hurried.reason) == (4, Reason.DEADLINE_EXCEEDED)
    assert (other.level, len(other.items)) == (1, 10)


def test_somebody_with_little_time_does_not_make_the_answer_of_the_others(slow_town: Town) -> None:
    async def go() -> tuple[Answer, Answer]:
        recommender = slow_town.recommender()
        hurried = asyncio.create_task(ask(recommender, deadline=Deadline.after(0.5, slow_town.clock)))
        await asyncio.sleep(0.002)
        return await ask(recommender), await hurried

    answers = asyncio.run(go())
    assert [answer.cached for answer in answers] == [False, False]
    assert slow_town.people.asked.count("requester") == 2


def test_a_failure_reaches_the_whole_herd_and_is_not_kept(slow_town: Town) -> None:
    slow_town.people.down = True

    async def go() -> tuple[list[Answer], Answer]:
        recommender = slow_town.recommender()
        herd = await asyncio.gather(*(ask(recommender) for _ in range(20)))
        slow_town.people.down = False
        return list(herd), await ask(recommender)

    herd, after = asyncio.run(go())
    assert {(answer.level, answer.reason) for answer in herd} == {(4, Reason.ELIGIBILITY_UNAVAILABLE)}
    assert after.level == 1


def test_a_herd_without_time_for_ranking_shares_the_lower_level_and_its_reason(slow_town: Town) -> None:
    slow_town.release = replace(slow_town.release, index=None)  # type: ignore[type-var]

    async def go() -> list[Answer]:
        recommender = slow_town.recommender()
        return await asyncio.gather(*(ask(recommender) for _ in range(5)))

    with structlog.testing.capture_logs() as logs:
        answers = asyncio.run(go())
    assert [line["event"] for line in logs] == ["stage_failed"]
    assert {(answer.level, answer.reason) for answer in answers} == {(2, Reason.RETRIEVAL_FAILED)}
    assert all(answer.degraded == ["retrieval"] for answer in answers)


class SlowAtFirst(MemoryPeople):
    """Postgres that answers the first question only after `first_s`."""

    first_s = 0.3

    async def requester(self, user_id: int, timeout_s: float, **how: Any) -> Any:
        first = "requester" not in self.asked
        found = await super().requester(user_id, timeout_s, **how)
        if first:
            await asyncio.sleep(self.first_s)
        return found


def test_those_who_wait_for_one_whose_time_ends_begin_anew_together_with_their_own(town: Town) -> None:
    town.people = SlowAtFirst(town.people.rows)
    brief = town.settings.serving.model_copy(update={"deadline_ms": 100})  # so little is enough to begin
    town.settings = town.settings.model_copy(update={"serving": brief})

    async def go() -> list[Answer]:
        recommender = town.recommender()
        begins = asyncio.create_task(ask(recommender, deadline=Deadline.after(0.06, town.clock)))
        await asyncio.sleep(0.001)
        waiting = (ask(recommender, deadline=Deadline.after(5.0, town.clock)) for _ in range(4))
        return [await begins, *await asyncio.gather(*waiting)][:5]

    first, *others = asyncio.run(go())
    assert (first.level, first.reason) == (4, Reason.DEADLINE_EXCEEDED)
    assert [(answer.level, answer.reason, len(answer.items)) for answer in others] == [(1, None, 10)] * 4
    assert town.people.asked.count("requester") == 2


def test_a_level_that_was_left_for_want_of_time_is_no_answer_for_those_with_more(slow_town: Town) -> None:
    async def go() -> tuple[Answer, Answer]:
        recommender = slow_town.recommender()
        strategy = recommender._ladder[0]

        class Hurried:
            level = strategy.level

            async def rank(self, run: Any, requester: Any) -> Any:
                if run.deadline.remaining_s() < 10:
                    raise LevelUnavailable(Reason.DEADLINE_EXCEEDED, "There was no time left for ranking.")
                return await strategy.rank(run, requester)

        recommender._ladder = (Hurried(), *recommender._ladder[1:])
        begins = asyncio.create_task(ask(recommender, deadline=Deadline.after(5.0, slow_town.clock)))
        await asyncio.sleep(0.002)
        return await ask(recommender, deadline=Deadline.after(20.0, slow_town.clock)), await begins

    patient, first = asyncio.run(go())
    assert (first.level, patient.level, patient.reason) == (2, 1, None)


class SlowFeatures(MemoryFeatures):
    """An online store that only answers those who give it a while."""

    async def read(self, user_id: int, timeout_s: float) -> People:
        if timeout_s < 3:
            self.reads += 1
            raise FeaturesUnavailable("The online feature store does not answer: TimeoutError.", late=True)
        return await super().read(user_id, timeout_s)


def test_features_that_were_left_out_for_want_of_time_are_read_for_those_with_more(slow_town: Town) -> None:
    slow_town.features = SlowFeatures()

    async def go() -> list[Answer]:
        recommender = slow_town.recommender()
        begins = asyncio.create_task(ask(recommender, deadline=Deadline.after(5.0, slow_town.clock)))
        await asyncio.sleep(0.002)
        alike = asyncio.create_task(ask(recommender, deadline=Deadline.after(5.0, slow_town.clock)))
        return [await ask(recommender, deadline=Deadline.after(20.0, slow_town.clock)), await begins, await alike]

    patient, first, alike = asyncio.run(go())
    assert [(answer.level, answer.degraded) for answer in (patient, first)] == [(1, []), (1, ["features"])]
    assert (alike.cached, alike.degraded) == (True, ["features"])  # it has no more time than the first had
    assert slow_town.features.reads == 2


def test_a_herd_shares_what_a_store_that_is_away_left_out(slow_town: Town) -> None:
    slow_town.features.down = True

    async def go() -> list[Answer]:
        recommender = slow_town.recommender()
        later = (ask(recommender, deadline=Deadline.after(20.0 + n, slow_town.clock)) for n in range(5))
        return await asyncio.gather(ask(recommender), *later)

    assert [answer.degraded for answer in asyncio.run(go())] == [["features"]] * 6
    assert slow_town.features.reads == 1


class SlowSecondLook(Counting):
    """Postgres that only says how more people stand to those who give it a while."""

    async def standing(self, user_id: int, candidate_ids: Any, *, timeout_s: float, **how: Any) -> Any:
        if "standing" in self.asked and timeout_s < 10:
            raise EligibilityUnknown(Reason.ELIGIBILITY_UNAVAILABLE, "Postgres did not answer in time.", late=True)
        return await super().standing(user_id, candidate_ids, timeout_s=timeout_s, **how)


def test_a_list_that_was_cut_short_for_want_of_time_is_made_whole_for_those_with_more(town: Town) -> None:
    town.people = SlowSecondLook(town.people.rows, hidden=set(range(66, 101, 2)))  # most of the first look

    async def go() -> tuple[Answer, Answer]:
        recommender = town.recommender()
        begins = asyncio.create_task(ask(recommender, deadline=Deadline.after(5.0, town.clock)))
        await asyncio.sleep(0.002)
        return await ask(recommender, deadline=Deadline.after(20.0, town.clock)), await begins

    patient, first = asyncio.run(go())
    assert (first.level, first.degraded, len(first.items) < 10) == (1, ["safety"], True)
    assert (patient.level, patient.degraded, len(patient.items)) == (1, [], 10)


def test_an_interaction_during_the_making_is_felt_by_whoever_asks_after_it(slow_town: Town) -> None:
    async def go() -> Answer:
        recommender = slow_town.recommender()
        before = asyncio.create_task(ask(recommender))
        await asyncio.sleep(0.005)
        slow_town.people.decided[1] = {100}
        assert slow_town.cache is not None
        slow_town.cache.forget(1)
        after = await ask(recommender)
        assert 100 not in ids(await before)
        return after

    assert 100 not in ids(asyncio.run(go()))
