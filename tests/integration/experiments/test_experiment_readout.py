import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from infra.cli.app import build_app
from infra.settings import ExperimentSettings, Settings
from pipelines.experiments.counterfactual import IPS, SNIPS
from pipelines.experiments.errors import NothingToReport
from pipelines.experiments.reading import last_stretch, read_outcomes, read_people
from pipelines.experiments.readout import read_out
from pipelines.experiments.report import ExperimentReport
from pipelines.experiments.sequential import Decision
from pipelines.experiments.tables import as_json, rows_of, shadow_rows
from registry.errors import NoSuchExperiment
from registry.experiments.table import ExperimentState, shadow_request_id
from tests.experiment_rows import TARGETS, Diary, begin, event

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
NOW = START + timedelta(hours=10)
HOUR = timedelta(hours=1)


@pytest.fixture
def diary(connection: psycopg.Connection[Any]) -> Diary:
    begin(connection, START)
    return Diary(connection)


def report(diary: Diary, **settings: Any) -> ExperimentReport:
    diary.write()
    return read_out(diary.connection, ExperimentSettings(**settings), NOW, "taste")


def test_rates_count_pairs_of_people_once_and_only_likes_within_the_window(diary: Diary) -> None:
    one, two, three, four = range(TARGETS, TARGETS + 4)
    at = START + HOUR
    diary.answer(1, at, shown=[one, two, three, four], liked=[one, two], liked_back=[two])
    diary.answer(1, at + HOUR / 4, shown=[one, three])  # shown again: no pair of their own
    diary.answer(2, at, shown=[one, two], liked=[one], after=2 * HOUR)  # a like that comes too late
    diary.answer(3, at, arm="challenger", shown=[one, four], liked=[four], liked_back=[four, one])
    diary.answer(4, NOW - HOUR / 2, arm="challenger", shown=[two])  # whose window is not over
    champion, challenger = report(diary).arms
    assert (champion.people, champion.answers, champion.exposures) == (2, 3, 6)
    assert champion.figures["like_rate"].value == pytest.approx(2 / 6)
    assert champion.figures["match_rate"].value == pytest.approx(1 / 6)
    assert (challenger.people, challenger.answers, challenger.exposures) == (2, 2, 2)
    assert challenger.figures["like_rate"].value == pytest.approx(1 / 2)
    assert challenger.figures["match_rate"].value == pytest.approx(1 / 2)


def test_what_was_taken_back_or_separated_within_the_window_does_not_count(diary: Diary) -> None:
    passed, blocked, kept, later = range(TARGETS, TARGETS + 4)
    at, window = START + HOUR, ExperimentSettings().attribution_s
    diary.answer(1, at, shown=[passed, blocked, kept, later], liked=[passed, blocked, kept, later])
    diary.likes += [(target, 1, at) for target in (passed, blocked, kept, later)]
    diary.ended += [
        (1, passed, at + timedelta(seconds=window / 2), "pass"),
        (blocked, 1, at + timedelta(seconds=window / 2), "block"),
        (later, 1, at + timedelta(seconds=window * 2), "report"),
    ]
    champion, _ = report(diary).arms
    assert champion.figures["like_rate"].value == pytest.approx(3 / 4)
    assert champion.figures["match_rate"].value == pytest.approx(2 / 4)


def test_answers_tell_levels_errors_and_the_time_of_those_that_were_made(diary: Diary) -> None:
    at = START + HOUR
    for user_id in range(1, 11):
        diary.answer(user_id, at, arm="challenger", took_ms=float(user_id))
        diary.answer(user_id, at, arm="challenger", took_ms=0.1, cached=True)
    diary.answer(1, at, arm="challenger", level=2, reason="ranking_failed")
    diary.answer(2, at, arm="challenger", variant="champion", reason="challenger_failed", release="e1-i1-r1")
    diary.answer(3, at, arm="challenger", variant="champion", reason="challenger_unavailable")
    diary.answer(4, at, arm="challenger", level=4, failed=True)
    diary.answer(5, at, arm="shadow", took_ms=3.0)
    champion, challenger, shadow = report(diary).arms
    figures = challenger.figures
    assert figures["error_rate"].value == pytest.approx(3 / 24)
    assert [figures[f"level_{name}"].value for name in ("full", "content", "random", "empty")] == pytest.approx(
        [22 / 24, 1 / 24, 0, 1 / 24]
    )
    assert challenger.releases == ("e1-i1-r1", "e2-i2-r2")
    assert figures["by_other_arm"].value == pytest.approx(2 / 24)
    assert figures["cached"].value == pytest.approx(10 / 24)
    assert figures["p50_ms"].value == pytest.approx(7.5)  # of 1 to 10 and four more of 10
    assert champion.answers == 0
    assert champion.figures["error_rate"].value != champion.figures["error_rate"].value
    assert (shadow.name, shadow.people, shadow.figures["p50_ms"].value) == ("shadow", 1, 3.0)


def test_only_the_stretch_since_the_share_last_changed_is_read(diary: Diary) -> None:
    diary.answer(1, START + HOUR, arm="challenger", shown=[TARGETS])
    event(diary.connection, START + 2 * HOUR, "share", 0.25)
    diary.answer(2, START + 3 * HOUR, shown=[TARGETS])
    event(diary.connection, START + 4 * HOUR, "stop", 0.25, state="off")
    diary.answer(3, START + 5 * HOUR, shown=[TARGETS])
    diary.write()
    stretch = last_stretch(diary.connection, "taste", NOW)
    assert (stretch.since, stretch.until) == (START + 2 * HOUR, START + 4 * HOUR)
    assert (stretch.share, stretch.state, stretch.running) == (0.25, ExperimentState.RUNNING, False)
    assert read_outcomes(diary.connection, stretch, HOUR / 2, 4).user_ids.tolist() == [2]


def test_whoever_was_served_by_both_arms_is_left_out_and_counted(diary: Diary) -> None:
    for arm in ("champion", "challenger"):
        diary.answer(1, START + HOUR, arm=arm, shown=[TARGETS])
    diary.answer(2, START + HOUR, shown=[TARGETS])
    diary.write()
    stretch = last_stretch(diary.connection, "taste", NOW)
    people = read_people(diary.connection, stretch)
    assert (people.champion, people.challenger, people.both) == (1, 0, 1)
    assert read_outcomes(diary.connection, stretch, HOUR, 4).user_ids.tolist() == [2]


def test_a_shadow_is_told_what_it_would_have_reached_by_the_showings_that_exploration_drew(diary: Diary) -> None:
    first, second, drawn = range(TARGETS, TARGETS + 3)
    at = START + HOUR
    for user_id in (1, 2):
        shown = [first, second if user_id == 1 else drawn]
        seen = diary.answer(user_id, at, shown=shown, liked=[shown[1]])
        diary.answer(user_id, at, arm="shadow", shown=[first, drawn], request_id=shadow_request_id(seen.request_id))
    diary.answer(3, at, shown=[first], liked=[first])  # which the shadow did not rank
    chances = {first: 0.8, second: 0.8, drawn: 0.1}
    diary.impressions = [row._replace(propensity=chances[row.target_id]) for row in diary.impressions]
    found = report(diary)
    assert found.counterfactual is not None
    assert (found.counterfactual.showings, found.counterfactual.own["like_rate"]) == (4, 0.5)
    # Weights 1 / .8 twice for the first place, 0 and 1 / .1 for the second; the drawn one was liked.
    assert found.counterfactual.estimates["like_rate"][IPS].value == pytest.approx(10 / 4)
    assert found.counterfactual.estimates["like_rate"][SNIPS].value == pytest.approx(10 / 12.5)
    assert as_json(found)["shadow_would_have_reached"]["like_rate"]["self-normalised"][0] == pytest.approx(0.8)
    assert shadow_rows(found.counterfactual)[0]["champion"] == "0.5000"


def test_without_a_shadow_nothing_is_said_of_one(diary: Diary) -> None:
    diary.answer(1, START + HOUR, shown=[TARGETS])
    assert report(diary).counterfactual is None


def test_a_testers_answers_and_those_of_another_experiment_do_not_count(diary: Diary) -> None:
    diary.answer(1, START + HOUR, experiment=None, shown=[TARGETS])
    diary.answer(2, START + HOUR, experiment="smell", shown=[TARGETS])
    assert [arm.answers for arm in report(diary).arms] == [0, 0]


def a_crowd(diary: Diary, *, of_challenger: range, of_champion: range) -> None:
    """Let the challenger's people like three of four shown and the champion's one of four, and be liked back."""
    for arm, people, n_liked in (("challenger", of_challenger, 3), ("champion", of_champion, 1)):
        for user_id in people:
            shown = [TARGETS + user_id % 50 + place * 50 for place in range(4)]
            diary.answer(
                user_id,
                START + timedelta(minutes=user_id),
                arm=arm,
                shown=shown,
                liked=shown[:n_liked],
                liked_back=shown[:n_liked],
            )


def test_a_clearly_better_challenger_is_found(diary: Diary) -> None:
    a_crowd(diary, of_challenger=range(1, 200, 2), of_champion=range(2, 201, 2))
    found = report(diary)
    assert found.decision is Decision.CHALLENGER
    assert "challenger better: match rate of the challenger less the champion's is +0.5" in found.sentence
    assert found.sample_ratio_p == pytest.approx(1.0)
    assert [step.look.decision for step in found.steps["match_rate"]][-1] is Decision.CHALLENGER
    shown = {row["figure"]: row for row in rows_of(found)}
    assert shown["people"] == {"figure": "people", "champion": "100", "challenger": "100"}
    assert shown["match rate"]["challenger"].startswith("0.7500 (")


def test_on_a_broken_sample_ratio_nothing_is_decided(diary: Diary) -> None:
    a_crowd(diary, of_challenger=range(1, 151), of_champion=range(151, 226))
    found = report(diary)
    assert found.ratio_is_broken
    assert found.decision is Decision.OPEN
    assert "75 and 150 people do not fit a share of 50.0%" in found.sentence


def test_a_shadow_has_no_sample_ratio_because_everybody_is_answered_by_the_champion(
    connection: psycopg.Connection[Any],
) -> None:
    event(connection, START, "start", 0.5, state="shadow")
    diary = Diary(connection)
    for user_id in range(1, 101):
        diary.answer(user_id, START + HOUR)
        diary.answer(user_id, START + HOUR, arm="shadow")
    found = report(diary)
    assert (found.sample_ratio_p, found.ratio_is_broken) == (None, False)
    assert [arm.people for arm in found.arms] == [100, 0, 100]


def test_the_json_holds_the_same_and_nothing_that_json_cannot_say(diary: Diary) -> None:
    diary.answer(1, START + HOUR, shown=[TARGETS], liked=[TARGETS])
    said = json.loads(json.dumps(as_json(report(diary)), allow_nan=False))
    assert said["arms"]["champion"]["like_rate"][0] == 1.0
    assert said["arms"]["challenger"]["like_rate"] == [None, None, None]
    assert said["decision"] == "no decision yet"
    assert said["differences"] == {"like_rate": [], "match_rate": []}


def test_an_experiment_that_never_was_is_refused(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(NothingToReport, match="No experiment was ever started"):
        read_out(connection, ExperimentSettings(), NOW)
    with pytest.raises(NoSuchExperiment, match="`smell`"):
        read_out(connection, ExperimentSettings(), NOW, "smell")


def test_the_command_line_prints_the_table_the_decision_and_json(
    diary: Diary, connected_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_crowd(diary, of_challenger=range(1, 200, 2), of_champion=range(2, 201, 2))
    diary.write()
    assert connected_settings.database_url is not None
    assert connected_settings.redis_url is not None
    monkeypatch.setenv("DUET_DATABASE_URL", connected_settings.database_url.get_secret_value())
    monkeypatch.setenv("DUET_REDIS_URL", connected_settings.redis_url.get_secret_value())
    monkeypatch.setenv("DUET_DATA_DIR", str(connected_settings.data_dir))

    def duet(*arguments: str) -> str:
        done = CliRunner().invoke(build_app(), ["experiment", "report", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    shown = duet("taste")
    assert "match rate" in shown
    assert "challenger better" in shown
    assert json.loads(duet("--json"))["experiment"] == "taste"
