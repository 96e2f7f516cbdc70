import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as property_settings
from hypothesis import strategies as st

from infra.settings import Settings
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.errors import EligibilityUnknown, UnknownUser
from serving.people.people_store import Int64, PairStanding, RequesterRow
from serving.reasons import Reason
from serving.recommend.answers import Answer
from tests.clocks import FixedClock
from tests.serving_fakes import MemoryPeople, Town, make_town, person
from tests.serving_world import START, load_town, write_artifacts

REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")
BEFORE, LATER = START - timedelta(minutes=1), START + timedelta(minutes=1)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return load_town(write_artifacts(tmp_path_factory.mktemp("release"), range(1, 101)))


@pytest.fixture
def town(settings: Settings, clock: FixedClock, release: Release) -> Town:
    return make_town(settings, clock, n=100, release=release)


def ask(town: Town, user_id: int = 1, **request: Any) -> Answer:
    return asyncio.run(town.recommender().recommend(RecommendationRequest(user_id=user_id, **request), REQUEST_ID))


def ids(answer: Answer) -> list[int]:
    return [item.user_id for item in answer.items]


@dataclass
class Eventful(MemoryPeople):
    """Postgres where something happens just before the last check; `behind` makes its profiles lag like a replica's."""

    happening: Any = None
    behind: bool = False
    kept: dict[int, RequesterRow] = field(default_factory=dict)

    async def requester(self, user_id: int, timeout_s: float, **how: Any) -> RequesterRow | None:
        if self.behind and user_id in self.kept:
            return self.kept[user_id]
        row = await super().requester(user_id, timeout_s, **how)
        if row is not None:
            self.kept[user_id] = row
        return row

    async def standing(self, user_id: int, candidate_ids: Int64, **limits: Any) -> PairStanding:
        if self.happening is not None:
            self.happening(self)
            self.happening = None
        return await super().standing(user_id, candidate_ids, **limits)


def eventful(town: Town, happening: Any, *, behind: bool = False) -> Town:
    town.people = Eventful(town.people.rows, happening=happening, behind=behind)
    return town


def test_a_preference_that_the_requester_changed_meanwhile_counts(town: Town) -> None:
    answer = ask(eventful(town, lambda people: people.update(1, LATER, age_max=29)), limit=100)
    assert answer.level == 1
    assert ids(answer)
    assert all(town.people.rows[user_id]["birth_date"].year >= 1996 for user_id in ids(answer))


def test_a_requester_who_now_seeks_others_is_shown_nobody_of_the_old_list(town: Town) -> None:
    assert ids(ask(eventful(town, lambda people: people.update(1, LATER, seeking=["woman"])))) == []


def test_a_requester_who_is_deleted_meanwhile_is_unknown(town: Town) -> None:
    with pytest.raises(UnknownUser):
        ask(eventful(town, lambda people: people.rows.pop(1)))


def test_a_requester_whose_newest_profile_cannot_be_read_yet_is_shown_nobody(town: Town) -> None:
    answer = ask(eventful(town, lambda people: people.update(1, LATER, age_max=29), behind=True))
    assert (answer.level, answer.items, answer.reason) == (4, [], Reason.ELIGIBILITY_UNAVAILABLE)


def test_whoever_is_decided_or_separated_meanwhile_is_not_shown(town: Town) -> None:
    def happening(people: MemoryPeople) -> None:
        people.decided[1] = {100}
        people.separated.add(frozenset({98, 1}))

    answer = ask(eventful(town, happening))
    assert len(answer.items) == 20
    assert not {100, 98} & set(ids(answer))


def test_a_row_that_changed_before_the_snapshot_was_read_needs_no_second_look(town: Town) -> None:
    town.since = LATER
    asked: list[datetime | None] = []

    class Noting(MemoryPeople):
        async def standing(self, user_id: int, candidate_ids: Int64, **limits: Any) -> PairStanding:
            found = await super().standing(user_id, candidate_ids, **limits)
            asked.append(limits["since"])
            assert not len(found.changed)
            return found

    town.people = Noting(town.people.rows)
    assert len(ask(town).items) == 20
    assert asked == [LATER]


@pytest.mark.parametrize("since", [None, BEFORE])
def test_a_snapshot_of_unknown_age_is_not_trusted(town: Town, since: datetime | None) -> None:
    town.since = since
    town.people.rows[100] = person(100, seeking=["man"])  # without a trace in `updated_at`
    assert 100 not in ids(ask(town))


def test_people_drawn_from_postgres_are_judged_by_fresh_rows(town: Town) -> None:
    town.release, town.population = None, None
    town.since = LATER
    answer = ask(eventful(town, lambda people: people.update(100, BEFORE, seeking=["man"])), limit=100)
    assert answer.level == 3
    assert 100 not in ids(answer)


def test_when_postgres_goes_away_between_two_looks_those_already_checked_are_shown(town: Town) -> None:
    class Leaving(MemoryPeople):
        async def standing(self, user_id: int, candidate_ids: Int64, **limits: Any) -> PairStanding:
            if "standing" in self.asked:
                raise EligibilityUnknown(Reason.ELIGIBILITY_UNAVAILABLE, "Postgres cannot be read.")
            return await super().standing(user_id, candidate_ids, **limits)

    town.people = Leaving(town.people.rows)
    town.people.hidden = set(range(66, 101, 2))  # most of the first look
    answer = ask(town, limit=10)
    assert (answer.level, answer.degraded) == (1, ["safety"])
    assert 0 < len(answer.items) < 10
    assert not set(ids(answer)) & town.people.hidden


def test_many_who_may_not_be_shown_only_cost_more_looks(town: Town) -> None:
    town.people.hidden = set(range(60, 101, 2))
    answer = ask(town, limit=20)
    assert len(answer.items) == 20
    assert max(ids(answer)) < 60
    assert town.people.asked.count("standing") == 2


HARMS = st.sampled_from(["hide", "delete", "decide", "separate", "age_min", "seeking", "gender"])


@given(
    harms=st.dictionaries(st.integers(1, 50).map(lambda half: 2 * half), HARMS, max_size=40), level=st.integers(1, 3)
)
@property_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_before_the_last_check_is_respected_at_every_level(
    settings: Settings, clock: FixedClock, release: Release, harms: dict[int, str], level: int
) -> None:
    town = make_town(settings, clock, n=100, release=release if level == 1 else None)
    if level == 3:
        town.population = None

    def happening(people: MemoryPeople) -> None:
        for other, harm in harms.items():
            if harm == "hide":
                people.hidden.add(other)
            elif harm == "delete":
                people.rows.pop(other)
            elif harm == "decide":
                people.decided.setdefault(1, set()).add(other)
            elif harm == "separate":
                people.separated.add(frozenset({other, 1}))
            else:
                change = {"age_min": 90, "seeking": ["man"], "gender": "woman"}
                people.update(other, LATER, **{harm: change[harm]})

    answer = ask(eventful(town, happening), limit=100)
    assert answer.level == level
    assert not set(ids(answer)) & set(harms)
    assert set(ids(answer)) == set(range(2, 101, 2)) - set(harms)
