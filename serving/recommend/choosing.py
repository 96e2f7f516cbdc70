"""Chooses whom an answer shows: the best level that works, then the last check of safety."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from serving.errors import EligibilityUnknown, LevelUnavailable
from serving.experiments.assignment import Assignment
from serving.people.people_store import PeopleStore
from serving.reasons import Level, Reason
from serving.recommend.answer_run import Run
from serving.recommend.answers import Showing
from serving.recommend.levels import Strategy
from serving.recommend.pool import KnownRequester, Ranked
from serving.recommend.stages.safety import Checked, only_safe


@dataclass(frozen=True)
class Chosen:
    """People in order on a level, and which of them may be shown; `since` as `only_safe` has it."""

    level: Level
    ranked: Ranked
    since: datetime | None
    checked: Checked


async def choose(run: Run, people: PeopleStore, ladder: Sequence[Strategy], requester: KnownRequester) -> Chosen:
    """Return whom to show; raises EligibilityUnknown, or UnknownUser when the requester is gone."""
    level, ranked = await _climb_down(run, ladder, requester)
    since = None if level is Level.RANDOM else run.since
    checked = await only_safe(run, people, requester, ranked, since)
    run.candidates |= {"retrieved": len(ranked.pool), "safe": len(checked.rows)}
    return Chosen(level, ranked, since, checked)


def nobody(run: Run, assignment: Assignment, why: EligibilityUnknown) -> Showing:
    """Return the empty answer."""
    run.step_down(why)
    release = run.release.release_id if run.release else None
    return Showing(Level.EMPTY, replace(assignment, variant=run.variant), release, None, [], [])


def too_late() -> EligibilityUnknown:
    """Return why an answer is empty whose time is over."""
    return EligibilityUnknown(
        Reason.DEADLINE_EXCEEDED, "There was no time left to check who can be shown safely.", late=True
    )


async def _climb_down(run: Run, ladder: Sequence[Strategy], requester: KnownRequester) -> tuple[Level, Ranked]:
    for strategy in ladder:
        try:
            return strategy.level, await _by(strategy, run, requester)
        except LevelUnavailable as error:
            run.step_down(error)
    raise EligibilityUnknown(Reason.POPULATION_UNAVAILABLE, "No level could answer.")


async def _by(strategy: Strategy, run: Run, requester: KnownRequester) -> Ranked:
    """Rank on a level, and once more with the champion's release when the challenger's fails on it."""
    try:
        return await strategy.rank(run, requester)
    except LevelUnavailable as error:
        run.give_up_challenger(error)
    return await strategy.rank(run, requester)
