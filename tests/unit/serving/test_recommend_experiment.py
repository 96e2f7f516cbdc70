import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.contracts import ReleaseVersions
from registry.experiments.table import ExperimentState
from registry.models.ranker_models import Boosted
from registry.release import Release
from serving.api.recommendation_models import RecommendationRequest
from serving.cache.answer_cache import AnswerCache
from serving.errors import LevelUnavailable, UnknownUser
from serving.experiments.assignment import Assignment, Experiment, Variant
from serving.reasons import Reason
from serving.recommend.answers import Answer
from tests.clocks import FixedClock
from tests.serving_fakes import Town, make_town
from tests.serving_world import load_town, write_artifacts

REQUEST_ID = UUID(int=1)
CHAMPION, CHALLENGER = ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Failures are logged with their traceback; drawing it takes longer than an answer may."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_artifacts(tmp_path_factory.mktemp("release"), range(1, 41))


def half(user_id: int, override: Variant | None) -> Assignment:
    """Give the challenger to whom a running experiment with a share of one half gives it."""
    arm = Experiment("taste", "pepper", 0.5, ExperimentState.RUNNING).variant(user_id)
    return Assignment(override or arm, "taste")


@pytest.fixture
def town(settings: Settings, clock: FixedClock, paths: dict[Any, Path]) -> Town:
    town = make_town(settings, clock, release=load_town(paths, CHAMPION))
    town.challenger = load_town(paths, CHALLENGER)
    town.assign = half
    return town


def ask(town: Town, user_id: int = 1, variant: Variant | None = None, **request: Any) -> Answer:
    body = RecommendationRequest(user_id=user_id, **request)
    return asyncio.run(town.recommender().recommend(body, REQUEST_ID, variant=variant))


def broken(release: Release) -> Release:
    """Return a release whose ranker answers with no probability."""

    class Booster:
        def inplace_predict(self, *_: Any, **__: Any) -> list[float]:
            return [7.0]

    return replace(release, ranker=replace(release.ranker, model=Boosted(Booster()), trees=None))


def someone(variant: Variant) -> int:
    return next(user_id for user_id in range(1, 41) if half(user_id, None).variant is variant)


@pytest.mark.parametrize("variant", Variant)
def test_each_arm_is_answered_by_its_release_and_logged_as_such(town: Town, variant: Variant) -> None:
    answer = ask(town, someone(variant), limit=3)
    release = {Variant.CHAMPION: "e1-i1-r1", Variant.CHALLENGER: "e2-i2-r2"}[variant]
    assert (answer.variant, answer.experiment, answer.release, answer.level) == (variant, "taste", release, 1)
    assert {(one.variant, one.release) for one in town.impressions} == {(variant.value, release)}
    assert answer.reason is None


def test_a_tester_sees_the_arm_they_choose(town: Town) -> None:
    answer = ask(town, someone(Variant.CHAMPION), Variant.CHALLENGER)
    assert (answer.variant, answer.release) == (Variant.CHALLENGER, "e2-i2-r2")


def test_without_a_challenger_its_people_get_the_champion_and_the_answer_says_why(town: Town) -> None:
    town.challenger = None
    answer = ask(town, someone(Variant.CHALLENGER))
    assert (answer.level, answer.variant, answer.release) == (1, Variant.CHAMPION, "e1-i1-r1")
    assert (answer.reason, answer.degraded) == (Reason.CHALLENGER_UNAVAILABLE, ["experiment"])
    assert answer.message
    assert {(one.variant, one.release) for one in town.impressions} == {("champion", "e1-i1-r1")}


def test_a_challenger_that_fails_at_a_request_gives_way_to_the_champion_before_any_lower_level(town: Town) -> None:
    assert town.challenger is not None
    town.challenger = broken(town.challenger)
    answer = ask(town, someone(Variant.CHALLENGER))
    assert (answer.level, answer.variant, answer.release) == (1, Variant.CHAMPION, "e1-i1-r1")
    assert answer.reason is Reason.CHALLENGER_FAILED
    assert "experiment" in answer.degraded
    assert {(one.variant, one.release) for one in town.impressions} == {("champion", "e1-i1-r1")}


def test_when_both_releases_fail_the_next_level_answers(town: Town) -> None:
    assert town.challenger is not None
    assert town.release is not None
    town.challenger, town.release = broken(town.challenger), broken(town.release)
    answer = ask(town, someone(Variant.CHALLENGER))
    assert (answer.level, answer.variant) == (2, Variant.CHAMPION)
    assert answer.reason is Reason.CHALLENGER_FAILED


def test_a_failing_champion_is_not_rescued_by_the_challenger(town: Town) -> None:
    assert town.release is not None
    town.release = broken(town.release)
    assert ask(town, someone(Variant.CHAMPION)).level == 2


def test_without_any_champion_the_challenger_still_answers_its_people(town: Town) -> None:
    town.release, town.no_release = None, LevelUnavailable(Reason.NO_RELEASE, "No model is in production yet.")
    answer = ask(town, someone(Variant.CHALLENGER))
    assert (answer.level, answer.variant, answer.release) == (1, Variant.CHALLENGER, "e2-i2-r2")


def test_a_kept_answer_names_the_arm_and_the_release_that_made_it(town: Town, settings: Settings) -> None:
    town.cache = AnswerCache(settings, town.clock, serving_metrics(), lambda: 0.5)
    recommender = town.recommender()
    body = RecommendationRequest(user_id=someone(Variant.CHALLENGER), limit=3)

    async def twice() -> list[Answer]:
        return [await recommender.recommend(body, REQUEST_ID) for _ in range(2)]

    first, second = asyncio.run(twice())
    assert (first.cached, second.cached) == (False, True)
    assert second.variant is Variant.CHALLENGER
    assert second.release == "e2-i2-r2"
    assert {(one.variant, one.release) for one in town.impressions} == {("challenger", "e2-i2-r2")}


def test_an_answer_of_the_champion_for_a_failed_challenger_is_not_kept(town: Town, settings: Settings) -> None:
    assert town.challenger is not None
    whole = town.challenger
    town.cache = AnswerCache(settings, town.clock, serving_metrics(), lambda: 0.5)
    town.challenger = broken(whole)
    user_id = someone(Variant.CHALLENGER)
    assert ask(town, user_id).variant is Variant.CHAMPION
    town.challenger = whole
    again = ask(town, user_id)
    assert (again.variant, again.cached) == (Variant.CHALLENGER, False)


@pytest.mark.parametrize("variant", Variant)
def test_every_answer_leaves_a_row_that_says_how_it_came_about(town: Town, variant: Variant) -> None:
    user_id = someone(variant)
    answer = ask(town, user_id, limit=3)
    (row,) = town.answers
    assert (row.request_id, row.user_id, row.experiment) == (REQUEST_ID, user_id, "taste")
    assert (row.arm, row.variant, row.release) == (variant.value, variant.value, answer.release)
    assert (row.level, row.reason, row.shown, row.cached, row.failed) == (1, None, 3, False, False)
    assert row.answered_at == town.clock.now()


def test_the_row_of_a_failing_challenger_keeps_its_arm_and_names_who_answered_instead(town: Town) -> None:
    assert town.challenger is not None
    town.challenger = broken(town.challenger)
    ask(town, someone(Variant.CHALLENGER))
    (row,) = town.answers
    assert (row.arm, row.variant, row.release) == ("challenger", "champion", "e1-i1-r1")
    assert (row.level, row.reason, row.failed) == (1, "challenger_failed", False)


def test_the_row_of_an_absent_challenger_keeps_its_arm(town: Town) -> None:
    town.challenger = None
    ask(town, someone(Variant.CHALLENGER))
    (row,) = town.answers
    assert (row.arm, row.variant, row.reason) == ("challenger", "champion", "challenger_unavailable")


def test_a_testers_choice_counts_for_no_experiment(town: Town) -> None:
    ask(town, someone(Variant.CHAMPION), Variant.CHALLENGER)
    (row,) = town.answers
    assert (row.experiment, row.arm, row.variant) == (None, "challenger", "challenger")


def test_an_empty_answer_leaves_a_row_too(town: Town) -> None:
    town.people.down = True
    assert ask(town).items == []
    (row,) = town.answers
    assert (row.level, row.reason, row.shown, row.failed) == (4, "eligibility_unavailable", 0, False)


def test_an_unforeseen_error_leaves_a_row_and_somebody_unknown_none(town: Town) -> None:
    recommender = town.recommender()

    def crash(*_: Any) -> None:
        raise ZeroDivisionError

    recommender._ranked = crash
    user_id = someone(Variant.CHALLENGER)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(recommender.recommend(RecommendationRequest(user_id=user_id), REQUEST_ID))
    (row,) = town.answers
    assert (row.failed, row.level, row.shown, row.user_id) == (True, 4, 0, user_id)
    assert (row.experiment, row.arm, row.release) == ("taste", "challenger", "e2-i2-r2")
    with pytest.raises(UnknownUser):
        ask(town, 999)
    assert len(town.answers) == 1


def test_an_answer_that_is_cut_off_for_taking_too_long_leaves_a_row_that_says_so(town: Town) -> None:
    recommender = town.recommender()
    user_id = someone(Variant.CHALLENGER)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    async def go() -> None:
        recommender._answer = hang  # type: ignore[assignment]
        async with asyncio.timeout(0.02):  # as the gate has it, for the time one HTTP request may take
            await recommender.recommend(RecommendationRequest(user_id=user_id), REQUEST_ID)

    with pytest.raises(TimeoutError):
        asyncio.run(go())
    (row,) = town.answers
    assert (row.failed, row.level, row.reason, row.shown) == (True, 4, "deadline_exceeded", 0)
    assert (row.experiment, row.arm, row.user_id) == ("taste", "challenger", user_id)


def test_a_kept_answer_leaves_a_row_that_says_so(town: Town, settings: Settings) -> None:
    town.cache = AnswerCache(settings, town.clock, serving_metrics(), lambda: 0.5)
    recommender = town.recommender()
    body = RecommendationRequest(user_id=1, limit=3)

    async def twice() -> None:
        for n in range(2):
            await recommender.recommend(body, UUID(int=n))

    asyncio.run(twice())
    assert [row.cached for row in town.answers] == [False, True]
