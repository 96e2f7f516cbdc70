"""The guard on real rows: it leaves the sound alone, ends what fails, takes back what got worse, and acts once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pytest

from infra.clock import SystemClock
from infra.endpoints import Endpoints
from pipelines.experiments.guard import ACTOR, Guard, GuardDecision
from pipelines.experiments.guardrails import load_guardrails
from pipelines.experiments.sensors import guard as guard_sensor
from pipelines.resources import Platform
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.experiments.table import By, experiment_events, last_verdicts, list_experiments, stop_experiment
from registry.promotion.audit import PostgresPromotionLog, Promotion
from registry.promotion.promotion import promote
from registry.promotion.release_cache import ReleaseCache
from tests.clocks import FixedClock
from tests.conftest import make_settings
from tests.experiment_rows import NEXT, RELEASE, TARGETS, Diary, begin
from tests.fakes import MemoryRegistry
from tests.releases import SCHEMA, register_release, write_release

# The database dates what the guard does by its own clock, so this must be the time of the day.
NOW = SystemClock().now()
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
AWAY: dict[str, Any] = {"level": 4, "reason": "eligibility_unavailable", "took_ms": 900.0}
"""An answer while Postgres is away."""
FIRST, SECOND, THIRD = (ReleaseVersions(n, n, n) for n in (1, 2, 3))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[ArtifactKind, Path]]:
    return [write_release(tmp_path_factory.mktemp("releases"), seed) for seed in range(3)]


@dataclass
class Tower:
    """A guard on real Postgres and a registry in memory, and the alerts it sent."""

    connection: psycopg.Connection[Any]
    registry: MemoryRegistry
    alerts: list[tuple[str, str]] = field(default_factory=list)
    cache: ReleaseCache | None = None
    schema: str = SCHEMA

    @property
    def log(self) -> PostgresPromotionLog:
        return PostgresPromotionLog(self.connection)

    def look(self, now: datetime = NOW) -> list[GuardDecision]:
        def alert(kind: str, summary: str, _: Mapping[str, Any]) -> None:
            self.alerts.append((kind, summary))

        rails = load_guardrails()
        return Guard(self.connection, self.log, lambda: self.registry, rails, alert, self.schema, self.cache).watch(now)

    def promoted(self, versions: ReleaseVersions, at: datetime | None = None) -> None:
        """Move a release to Production at an instant of the past, or now."""
        for kind in ArtifactKind:
            self.registry.transition_stage(kind, versions[kind], PRODUCTION)
        with self.log.exclusively():
            self.log.record(Promotion(versions, PRODUCTION, "ada", "cli", at=at))

    def in_production(self) -> str:
        found = self.registry.resolve_stage(PRODUCTION)
        return found.release_id if found else "nothing"


@pytest.fixture
def tower(connection: psycopg.Connection[Any], written: list[dict[ArtifactKind, Path]]) -> Tower:
    connection.commit()
    connection.autocommit = True
    registry = MemoryRegistry()
    for paths in written:
        register_release(registry, paths)
    return Tower(connection, registry)


def traffic(diary: Diary, of: str, *, begin: datetime, end: datetime, n: int = 400, **answer: Any) -> None:
    """Let fifty people ask evenly over a time; `of` is the arm, or the release of the champion."""
    arm = {"experiment": "taste", "arm": of} if of in {"champion", "challenger"} else {"experiment": None}
    release = {} if "arm" in arm else {"release": of}
    shift = 1_000 if of == "challenger" else 0
    for number in range(n):
        at = begin + (end - begin) * number / n
        diary.answer(1 + shift + number % 50, at, **{**arm, **release, **answer})


def an_experiment(tower: Tower, **challenger: Any) -> None:
    begin(tower.connection, NOW - 8 * MINUTE)
    diary = Diary(tower.connection)
    traffic(diary, "champion", begin=NOW - 8 * MINUTE, end=NOW)
    traffic(diary, "challenger", begin=NOW - 8 * MINUTE, end=NOW, **challenger)
    diary.write()


def test_a_guard_with_nothing_to_watch_says_nothing(tower: Tower) -> None:
    assert tower.look() == []
    assert last_verdicts(tower.connection) == {}


def test_a_sound_challenger_goes_on_and_its_figures_are_kept(tower: Tower) -> None:
    an_experiment(tower)
    (verdict,) = tower.look()
    assert (verdict.subject, verdict.of, verdict.outcome) == ("challenger", "taste", "well")
    assert "error_rate 0.0000" in verdict.summary
    kept = last_verdicts(tower.connection)["challenger"]
    assert (kept.of, kept.verdict, kept.summary, kept.judged_at) == ("taste", "well", verdict.summary, NOW)
    assert [one.state for one in list_experiments(tower.connection)] == ["running"]
    assert tower.alerts == []


@pytest.mark.parametrize(
    ("degraded", "metric"),
    [
        ({"variant": "champion", "reason": "challenger_failed", "release": RELEASE}, "error_rate"),
        ({"failed": True, "level": 4}, "error_rate"),
        ({"level": 2, "reason": "deadline_exceeded"}, "below_full_rate"),
        ({"took_ms": 45.0}, "slow_rate"),
    ],
)
def test_a_degraded_challenger_ends_its_experiment_once_with_an_event_and_an_alert(
    tower: Tower, degraded: dict[str, Any], metric: str
) -> None:
    an_experiment(tower, **degraded)
    (verdict,) = tower.look()
    assert (verdict.outcome, metric in verdict.summary) == ("ended", True)
    assert [one.state for one in list_experiments(tower.connection)] == ["off"]
    event = experiment_events(tower.connection, "taste")[-1]
    assert (event.kind, event.actor, event.way) == ("stop", ACTOR, "automation")
    assert metric in event.reason
    assert [kind for kind, _ in tower.alerts] == ["experiment_ended"]
    assert tower.look(NOW + MINUTE) == []
    assert len(tower.alerts) == 1
    assert last_verdicts(tower.connection)["challenger"].verdict == "ended"


def test_a_challenger_whose_people_like_far_fewer_is_ended(tower: Tower) -> None:
    begin(tower.connection, NOW - 9 * MINUTE)
    diary = Diary(tower.connection)
    for arm, n_liked in (("champion", 3), ("challenger", 0)):
        for user_id in range(1, 101):
            shown = [TARGETS + place for place in range(5)]
            number = user_id + (1_000 if arm == "challenger" else 0)
            diary.answer(number, NOW - 8 * MINUTE, arm=arm, shown=shown, liked=shown[:n_liked])
            diary.answer(number, NOW - 7 * MINUTE, arm=arm)
    diary.write()
    (verdict,) = tower.look()
    assert verdict.outcome == "ended"
    assert "like_rate 0.0000 (limit 0.4200, other side 0.6000)" in verdict.summary


def test_a_few_failures_of_few_answers_are_waited_for(tower: Tower) -> None:
    begin(tower.connection, NOW - 8 * MINUTE)
    diary = Diary(tower.connection)
    traffic(diary, "champion", begin=NOW - 8 * MINUTE, end=NOW)
    traffic(diary, "challenger", begin=NOW - 8 * MINUTE, end=NOW, n=60, failed=True)
    diary.write()
    (verdict,) = tower.look()
    assert (verdict.outcome, verdict.summary.split(";")[0]) == ("waiting", "error_rate: too few yet")


def test_an_outage_of_postgres_says_nothing_of_either_arm(tower: Tower) -> None:
    begin(tower.connection, NOW - 8 * MINUTE)
    diary = Diary(tower.connection)
    traffic(diary, "champion", begin=NOW - 8 * MINUTE, end=NOW)
    traffic(diary, "challenger", begin=NOW - 8 * MINUTE, end=NOW, **AWAY)
    diary.write()
    (verdict,) = tower.look()
    assert verdict.outcome == "waiting"


def test_an_experiment_that_somebody_just_ended_is_not_ended_again(tower: Tower) -> None:
    an_experiment(tower, failed=True)
    stop_experiment(tower.connection, "taste", by=By("ada"))
    assert tower.look() == []
    assert tower.alerts == []


def write_more(diary: Diary) -> None:
    """Write answers of people who are known already."""
    with diary.connection.cursor() as cursor, cursor.copy("copy duet.answers from stdin") as copy:
        for row in diary.answers:
            copy.write_row(row._replace(request_id=uuid4()))
    diary.connection.commit()


def a_promotion(tower: Tower, *, at: datetime = NOW - 10 * MINUTE, **fresh: Any) -> None:
    """Promote the second release after the first, with the same traffic before and since."""
    tower.promoted(FIRST, at - 600 * MINUTE)
    tower.promoted(SECOND, at)
    the_traffic_around(tower, at, **fresh)


def the_traffic_around(tower: Tower, at: datetime, **fresh: Any) -> None:
    diary = Diary(tower.connection)
    traffic(diary, RELEASE, begin=at - 10 * MINUTE, end=at)
    traffic(diary, NEXT, begin=at, end=at + 10 * MINUTE, **fresh)
    diary.write()


def test_a_sound_fresh_release_stays(tower: Tower) -> None:
    a_promotion(tower)
    (verdict,) = tower.look()
    assert (verdict.subject, verdict.of, verdict.outcome) == ("champion", NEXT, "well")
    assert tower.in_production() == NEXT


def test_a_fresh_release_that_degrades_is_taken_back_once_with_audit_and_alert(tower: Tower) -> None:
    a_promotion(tower, level=2, reason="ranking_failed")
    (verdict,) = tower.look()
    assert verdict.outcome == "rolled back"
    assert tower.in_production() == RELEASE
    last = tower.log.history(PRODUCTION)[-1]
    assert (last.versions, last.rolled_back_from, last.actor, last.way) == (FIRST, NEXT, ACTOR, "automation")
    assert f"{NEXT} broke its guardrail beside {RELEASE}: error_rate 1.0000" in last.reason
    assert [kind for kind, _ in tower.alerts] == ["release_rolled_back"]
    # The release that stands now was rolled back to: nobody judges it, whatever its answers are.
    assert tower.look(NOW + MINUTE) == []
    assert len(tower.log.history(PRODUCTION)) == 3
    assert len(tower.alerts) == 1


def test_an_old_release_is_not_watched_any_more(tower: Tower) -> None:
    a_promotion(tower, at=NOW - 25 * HOUR, level=2)
    assert tower.look() == []
    assert tower.in_production() == NEXT


def at_a_minute() -> datetime:
    """Return an instant ten minutes ago at the beginning of a minute."""
    return (NOW - 11 * MINUTE).replace(second=0, microsecond=0)


def test_an_outage_after_a_promotion_rolls_back_no_innocent_release(tower: Tower) -> None:
    at = at_a_minute()
    a_promotion(tower, at=at)
    diary = Diary(tower.connection)
    for number in range(300):
        when = at + 5 * MINUTE + 3 * MINUTE * number / 300
        # What comes late or fails beside the answers that name Postgres is its fault, too.
        beside = [AWAY, {"level": 2, "reason": "deadline_exceeded", "took_ms": 900.0}, {"failed": True, "level": 4}]
        diary.answer(1 + number % 50, when, experiment=None, release=NEXT, **beside[number % 3])
    write_more(diary)
    (verdict,) = tower.look()
    assert verdict.outcome == "well"
    assert tower.in_production() == NEXT


def test_an_outage_before_a_promotion_hides_no_harmful_release(tower: Tower) -> None:
    at = at_a_minute()
    tower.promoted(FIRST, at - 600 * MINUTE)
    tower.promoted(SECOND, at)
    diary = Diary(tower.connection)
    traffic(diary, RELEASE, begin=at - 10 * MINUTE, end=at - 5 * MINUTE, n=200)
    traffic(diary, RELEASE, begin=at - 5 * MINUTE, end=at, n=600, **AWAY)
    traffic(diary, NEXT, begin=at, end=at + 10 * MINUTE, level=2, reason="ranking_failed")
    diary.write()
    (verdict,) = tower.look()
    assert verdict.outcome == "rolled back"
    assert "below_full_rate 1.0000 (limit 0.0500, other side 0.0000)" in verdict.summary


def test_a_release_is_compared_in_the_same_hours_of_the_day_before(tower: Tower) -> None:
    at = NOW - 10 * MINUTE
    tower.promoted(FIRST, at - 48 * HOUR)
    tower.promoted(SECOND, at)
    diary = Diary(tower.connection)
    traffic(diary, RELEASE, begin=at - 24 * HOUR, end=at - 24 * HOUR + 10 * MINUTE, took_ms=45.0)  # the busy hour
    traffic(diary, RELEASE, begin=at - 10 * MINUTE, end=at, took_ms=10.0)
    traffic(diary, NEXT, begin=at, end=at + 10 * MINUTE, took_ms=46.0)
    diary.write()
    (verdict,) = tower.look()
    assert verdict.outcome == "well"


def test_a_release_is_watched_for_a_day(tower: Tower) -> None:
    a_promotion(tower, at=NOW - 23 * HOUR)
    diary = Diary(tower.connection)
    traffic(diary, RELEASE, begin=NOW - 25 * HOUR, end=NOW - 24 * HOUR)
    traffic(diary, NEXT, begin=NOW - HOUR, end=NOW, n=800, level=2, reason="ranking_failed")
    write_more(diary)
    (verdict,) = tower.look()
    assert verdict.outcome == "rolled back"
    assert tower.in_production() == RELEASE


def test_the_first_release_of_all_has_nothing_to_go_back_to(tower: Tower) -> None:
    tower.promoted(FIRST, NOW - 10 * MINUTE)
    diary = Diary(tower.connection)
    traffic(diary, RELEASE, begin=NOW - 10 * MINUTE, end=NOW, level=2)
    diary.write()
    assert tower.look() == []


def test_after_a_rollback_of_its_own_the_guard_rests_and_says_so_once(tower: Tower) -> None:
    a_promotion(tower, failed=True)
    tower.look()
    tower.promoted(SECOND)  # somebody insists
    again = tower.log.history(PRODUCTION)[-1].at
    assert again is not None
    tower.connection.execute("delete from duet.answers")
    tower.connection.execute("delete from duet.users")
    the_traffic_around(tower, again, failed=True)
    for later in (10, 11):
        (verdict,) = tower.look(again + later * MINUTE)
        assert verdict.outcome == "broken"
        assert "the guard rests until" in verdict.summary
    assert tower.in_production() == NEXT
    assert [kind for kind, _ in tower.alerts] == ["release_rolled_back", "guardrail_broken"]


def test_a_registry_that_is_away_is_said_once_and_the_rollback_tried_again(tower: Tower) -> None:
    a_promotion(tower, failed=True)
    tower.registry.down = True
    for _ in range(2):
        (verdict,) = tower.look()
        assert verdict.outcome == "broken"
        assert "could not be taken back" in verdict.summary
    assert [kind for kind, _ in tower.alerts] == ["guardrail_broken"]
    tower.registry.down = False
    (verdict,) = tower.look()
    assert verdict.outcome == "rolled back"
    assert tower.in_production() == RELEASE


def test_without_mlflow_a_degraded_release_is_taken_back_from_the_copy_that_served(
    tower: Tower, tmp_path: Path
) -> None:
    tower.cache = ReleaseCache(tmp_path)
    promote(tower.registry, tower.log, FIRST, actor="ada", way="cli", feature_schema=None, cache=tower.cache)
    tower.promoted(SECOND)
    at = tower.log.history(PRODUCTION)[-1].at
    assert at is not None
    the_traffic_around(tower, at, failed=True)
    tower.registry.down = True
    (verdict,) = tower.look(at + 10 * MINUTE)
    assert verdict.outcome == "rolled back"
    pin = tower.log.open_pin()
    assert pin is not None
    assert (pin.versions, pin.actor) == (FIRST, ACTOR)


def test_the_sensor_shows_the_figures_acts_and_alerts(
    tower: Tower, endpoints: Endpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(tmp_path, logging={"format": "json"})
    platform = Platform(settings, replace(endpoints, mlflow_url="http://127.0.0.1:9"), FixedClock(NOW))

    def tick() -> str:
        with dg.build_sensor_context(resources={"platform": platform}) as context:
            said = guard_sensor(context)
        assert isinstance(said, dg.SkipReason)
        return str(said.skip_message)

    assert tick() == "no experiment is running and no release is fresh"
    an_experiment(tower, failed=True)
    capsys.readouterr()
    assert tick().startswith("challenger taste: ended; the challenger broke its guardrail: error_rate 1.0000")
    written = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (alert,) = [line for line in written if line["event"] == "alert"]
    assert alert["kind"] == "experiment_ended"
    assert alert["details"]["error_rate"]["broken"] is True
    assert guard_sensor.default_status is dg.DefaultSensorStatus.RUNNING
