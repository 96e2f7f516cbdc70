"""Days as assets: a backfill computes any range of them, and old rows become totals without losing a count."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from infra.embedded.ports import free_port
from pipelines.definitions import build_definitions
from pipelines.resources import Platform
from pipelines.upkeep.activity import DailyActivity, measure_day, store_day, stored_days
from pipelines.upkeep.assets import daily_totals
from pipelines.upkeep.first_day import WITHOUT_DATA, first_day
from pipelines.upkeep.folding import FOLDS, fold_before, fold_rows
from pipelines.upkeep.schedules import daily_measure_activity, nightly_fold_history
from tests.asset_runs import run_asset
from tests.clocks import FixedClock

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = datetime(2026, 1, 10, tzinfo=UTC)
Db = psycopg.Connection[Any]


def people(connection: Db, n: int) -> None:
    connection.execute("insert into duet.users (user_id) select generate_series(1, %s)", (n,))
    connection.commit()


def did(connection: Db, actor: int, kind: str, target: int, at: datetime) -> None:
    connection.execute(
        "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at) values (%s, %s, %s, %s, %s)",
        (uuid4(), actor, target, kind, at),
    )
    connection.commit()


def was_shown(connection: Db, target: int, at: datetime, times: int = 1, release: str | None = "e1-i1-r1") -> None:
    for _ in range(times):
        connection.execute(
            "insert into duet.impressions (request_id, user_id, target_id, position, source, release, level, shown_at)"
            " values (%s, 1, %s, 0, 'index', %s, 1, %s)",
            (uuid4(), target, release, at),
        )
    connection.commit()


def answered(connection: Db, at: datetime, took_ms: float) -> None:
    connection.execute(
        "insert into duet.answers (request_id, user_id, arm, variant, level, shown, took_ms, cached, failed,"
        " answered_at) values (%s, 1, 'champion', 'champion', 1, 10, %s, false, false, %s)",
        (uuid4(), took_ms, at),
    )
    connection.commit()


def totals(connection: Db) -> dict[Any, int]:
    """Count what was shown, by day and release, wherever it is kept."""
    rows = connection.execute(
        "select day, release, sum(n)::bigint from ("
        " select (shown_at at time zone 'UTC')::date as day, coalesce(release, '') as release, count(*) as n"
        " from duet.impressions group by 1, 2"
        " union all select day, release, shown from duet.impressions_daily) kept group by 1, 2"
    ).fetchall()
    connection.commit()
    return {row[:2]: row[2] for row in rows}


def left(connection: Db, table: str = "impressions") -> int:
    ((n,),) = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier("duet", table))).fetchall()
    connection.commit()
    return int(n)


def test_the_figures_of_a_day_are_those_of_a_tiny_world(connection: Db) -> None:
    people(connection, 5)
    noon, before = DAY + timedelta(hours=12), DAY - timedelta(hours=1)
    did(connection, 1, "like", 2, before)
    did(connection, 2, "superlike", 1, noon)  # the second like of a pair matches it
    did(connection, 3, "like", 4, noon)
    did(connection, 4, "like", 3, noon + timedelta(hours=1))  # both on this day: one match
    did(connection, 5, "like", 1, noon)
    did(connection, 1, "like", 5, DAY + timedelta(days=1))  # matches tomorrow
    did(connection, 5, "pass", 2, DAY)
    did(connection, 5, "message", 2, noon)
    was_shown(connection, 2, noon, times=3)
    was_shown(connection, 3, DAY + timedelta(hours=23, minutes=59))
    found = measure_day(connection, DAY.date())
    assert found == DailyActivity(DAY.date(), 4, 4, 1, 1, 2, 4, 2, 0.25)
    assert measure_day(connection, DAY.date() + timedelta(days=1)).matches == 1
    did(connection, 2, "like", 1, DAY + timedelta(days=1, hours=3))  # once more: they match already
    assert measure_day(connection, DAY.date() + timedelta(days=1)).matches == 1
    did(connection, 4, "block", 3, noon + timedelta(hours=2))  # before the day was over
    did(connection, 2, "pass", 1, DAY + timedelta(days=1, hours=4))
    assert [measure_day(connection, DAY.date() + timedelta(days=days)).matches for days in (0, 1)] == [1, 1]


def test_a_day_computed_again_replaces_its_row(connection: Db) -> None:
    people(connection, 2)
    store_day(connection, DAY.date())
    did(connection, 1, "like", 2, DAY)
    again = store_day(connection, DAY.date())
    assert stored_days(connection, date(2000, 1, 1), date(2100, 1, 1)) == [again]
    assert again.likes == 1


def test_a_backfill_of_a_range_is_one_run_that_computes_every_day(
    platform: Platform, instance: dg.DagsterInstance, connection: Db
) -> None:
    people(connection, 2)
    did(connection, 1, "pass", 2, DAY)
    did(connection, 1, "like", 2, DAY + timedelta(days=2))
    job = build_definitions(platform).resolve_job_def("measure_activity")
    span = {"dagster/asset_partition_range_start": "2026-01-10", "dagster/asset_partition_range_end": "2026-01-13"}
    result = job.execute_in_process(instance=instance, tags=span)
    assert result.success
    made = result.asset_materializations_for_node("daily_activity")
    assert sorted(str(each.partition) for each in made) == [f"2026-01-{day}" for day in range(10, 14)]
    assert {str(each.partition): each.metadata["likes"].value for each in made}["2026-01-12"] == 1
    pictures = [each for each in made if "plot: daily activity" in each.metadata]
    assert [each.partition for each in pictures] == ["2026-01-13"]
    assert [figures.likes for figures in stored_days(connection, date(2026, 1, 1), date(2026, 2, 1))] == [0, 0, 1, 0]


def begins(platform: Platform) -> date:
    days = build_definitions(platform).resolve_assets_def("daily_activity").partitions_def
    assert isinstance(days, dg.DailyPartitionsDefinition)
    return days.start.date()


def test_days_begin_with_the_first_interaction_or_the_first_figures(platform: Platform, connection: Db) -> None:
    assert begins(platform) == WITHOUT_DATA
    people(connection, 2)
    did(connection, 1, "like", 2, datetime(2019, 3, 4, 23, 59, tzinfo=UTC))
    assert begins(platform) == date(2019, 3, 4)
    store_day(connection, date(2018, 7, 1))
    connection.commit()
    assert begins(platform) == date(2018, 7, 1)


def test_data_of_today_alone_leaves_yesterday_to_compute(platform: Platform, connection: Db) -> None:
    people(connection, 2)
    did(connection, 1, "like", 2, NOW)
    assert first_day(platform.settings, FixedClock(NOW), platform.database_url) == date(2026, 5, 31)


def test_a_code_location_without_its_database_loads_all_the_same(platform: Platform) -> None:
    lost = f"postgresql://duet@127.0.0.1:{free_port()}/duet"
    settings = platform.settings.model_copy(update={"database_url": SecretStr(lost)})
    assert first_day(settings, FixedClock(NOW)) == WITHOUT_DATA


def test_the_schedule_computes_the_days_it_missed(
    platform: Platform, instance: dg.DagsterInstance, connection: Db
) -> None:
    def tick() -> tuple[str | None, dict[str, str]]:
        with dg.build_schedule_context(
            instance=instance, resources={"platform": platform}, scheduled_execution_time=NOW
        ) as context:
            data = daily_measure_activity.evaluate_tick(context)
        return data.skip_message, dict((data.run_requests or [dg.RunRequest()])[0].tags)

    assert tick()[1]["dagster/asset_partition_range_start"] == "2026-05-31"
    store_day(connection, date(2026, 5, 27))
    why, asked = tick()
    assert why is None
    assert asked["dagster/asset_partition_range_start"] == "2026-05-28"
    assert asked["dagster/asset_partition_range_end"] == "2026-05-31"
    store_day(connection, date(2026, 5, 31))
    assert tick()[0] == "2026-05-31 is computed already"


def test_no_count_is_lost_by_a_folding_that_is_killed_and_done_again(platform: Platform, connection: Db) -> None:
    for day in range(3):
        was_shown(connection, 2, DAY + timedelta(days=day), times=5)
        was_shown(connection, 3, DAY + timedelta(days=day), times=2, release=None)
    before = totals(connection)

    with platform.connection() as doomed:

        def die(rows: int) -> None:
            if rows >= 8:  # in the middle of a day
                doomed.execute("select pg_terminate_backend(pg_backend_pid())")

        with pytest.raises(psycopg.OperationalError):
            fold_rows(doomed, FOLDS[0], DAY + timedelta(days=2), 4, die)
    assert left(connection) == 13
    assert totals(connection) == before
    assert fold_rows(connection, FOLDS[0], DAY + timedelta(days=2), 4) == 6
    assert left(connection) == 7
    assert totals(connection) == before
    assert fold_rows(connection, FOLDS[0], DAY + timedelta(days=2), 4) == 0
    assert totals(connection) == before


def test_answers_are_folded_with_what_they_took(connection: Db) -> None:
    for took_ms in (1.5, 2.5):
        answered(connection, DAY, took_ms)
    answered(connection, DAY + timedelta(days=1), 9.0)
    assert fold_rows(connection, FOLDS[1], DAY + timedelta(days=1), 1) == 2
    rows = connection.execute("select day, arm, experiment, answers, shown, took_ms from duet.answers_daily").fetchall()
    assert rows == [(DAY.date(), "champion", "", 2, 20, 4.0)]
    assert left(connection, "answers") == 1


def test_what_a_running_experiment_is_judged_by_stays(connection: Db) -> None:
    kept = timedelta(days=90)
    assert fold_before(connection, NOW, kept) == datetime(2026, 3, 3, tzinfo=UTC)
    connection.execute(
        "insert into duet.experiments (name, salt, state, started_at) values ('taste', 's', 'running', %s)", (DAY,)
    )
    assert fold_before(connection, NOW, kept) == DAY


def test_the_step_folds_what_is_old_and_keeps_how_it_was_spread(
    platform: Platform, instance: dg.DagsterInstance, connection: Db, clock: FixedClock
) -> None:
    def why() -> str | None:
        with dg.build_schedule_context(
            instance=instance, resources={"platform": platform}, scheduled_execution_time=clock.now()
        ) as context:
            return nightly_fold_history.evaluate_tick(context).skip_message

    assert why() == "there are no rows from before 2026-03-03"
    was_shown(connection, 2, DAY, times=3)
    was_shown(connection, 3, DAY)
    was_shown(connection, 3, NOW)
    assert why() is None
    before = totals(connection)
    assert run_asset(daily_totals, platform, instance, batch_rows=2).success
    assert totals(connection) == before
    assert left(connection) == 1
    (day,) = [found for found in stored_days(connection, DAY.date(), DAY.date()) if found.shown]
    assert (day.shown, day.people_shown, day.exposure_gini) == (4, 2, 0.25)
    assert store_day(connection, DAY.date()).shown == 4  # from the total
    assert stored_days(connection, DAY.date(), DAY.date())[0].exposure_gini == 0.25
