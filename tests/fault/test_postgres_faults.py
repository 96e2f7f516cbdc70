"""Faults 14 and 15: sessions killed, locks held, the pool used up, statements too slow; people unknown or just gone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from infra.web.client import tls
from tests.fault.crowd import Answer, Crowd, ask_each
from tests.fault.proxy import Mode
from tests.fault.stage import ASKERS, Stage, staged
from tests.fault.writer import Writer
from tests.serving_world import insert_person
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)

WEBHOOK = {
    "WEBHOOKS__URL": "http://127.0.0.1:9/nobody",
    "WEBHOOKS__SECRET": "whsec_c2lnbmVkIHdpdGggdGhpcyBrZXkgb2YgYSB0ZXN0",
    "WEBHOOKS__ALLOW_PRIVATE": "true",
}
"""Nobody listens there: what the app is to be told of stays where it can be counted."""
LATE_REASONS = {"eligibility_unavailable", "deadline_exceeded"}


@pytest.fixture(scope="module")
def stage(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    small = {"POSTGRES__POOL_SIZE": "4", "POSTGRES__MAX_OVERFLOW": "2"}
    with staged(endpoints, tmp_path_factory.mktemp("primary"), **small, **WEBHOOK) as stage:
        yield stage


@contextmanager
def locked(stage: Stage, table: bytes) -> Iterator[None]:
    """Hold a lock that nobody can read past."""
    with connect(stage.endpoints.database_url) as connection:
        connection.execute(b"lock table " + table + b" in access exclusive mode")
        yield
        connection.rollback()


def sessions(stage: Stage) -> int:
    with connect(stage.endpoints.database_url) as connection:
        row = connection.execute(
            "select count(*)::int from pg_stat_activity"
            " where application_name = 'duet-serving' and datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def settle_within_its_pool(stage: Stage) -> None:
    """Wait until the server has no more sessions than the pool: it ends given up ones by itself."""
    until(lambda: 0 < sessions(stage) <= 6, instead=lambda: f"{sessions(stage)} sessions")


def stored(stage: Stage) -> int:
    with connect(stage.endpoints.database_url) as connection:
        row = connection.execute("select count(*)::int from duet.interactions").fetchone()
    assert row is not None
    return int(row[0])


def send_again(stage: Stage, crowd: Crowd) -> list[tuple[bool, int]]:
    """Send every interaction once more, as a client does that lost its answer; was each acknowledged, and what now."""
    with httpx.Client(base_url=stage.service.url, trust_env=False, timeout=20) as client:
        return [
            (written.is_acknowledged, client.post("/v1/interactions", json=written.body).status_code)
            for written in crowd.written
        ]


def test_killed_sessions_are_replaced_and_nothing_acknowledged_is_lost_or_written_twice(stage: Stage) -> None:
    before = stored(stage)
    with stage.crowd() as crowd:
        crowd.until_whole()
        for _ in range(8):
            with connect(stage.endpoints.database_url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name like 'duet-serving%' and datname = current_database()"
                )
            time.sleep(0.15)
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    again = send_again(stage, crowd)
    assert {now for was_acknowledged, now in again if was_acknowledged} == {200}, (
        "an acknowledged interaction was not known"
    )
    assert {now for _, now in again} <= {200, 201}
    assert stored(stage) == before + len(crowd.written), "an interaction was lost, or written twice"
    settle_within_its_pool(stage)


def test_people_and_batches_are_stored_whole_or_not_at_all_while_the_database_breaks(stage: Stage) -> None:
    with Writer(stage.service.url) as writer:
        for _ in range(3):
            begun = len(writer.rounds)
            with connect(stage.endpoints.database_url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'duet-serving' and datname = current_database()"
                )
            stage.postgres.set(Mode.REFUSE)
            until(lambda begun=begun: writer.since(begun, 503), instead=lambda: writer.rounds[-3:])
            stage.postgres.heal()
            begun = len(writer.rounds)
            until(lambda begun=begun: {200} in writer.rounds[begun:], instead=lambda: writer.rounds[-3:])
    assert set().union(*writer.rounds) <= {200, 201, 503}
    with connect(stage.endpoints.database_url) as connection:
        for user_id, turns in writer.people.items():
            bio, interests, told = connection.execute(
                "select bio, interests, (attributes->>'turn')::int from duet.users where user_id = %s", (user_id,)
            ).fetchone() or ("", [], -1)
            assert (bio, interests) == (f"turn {told}", [f"turn-{told}"]), "a person is half of one write"
            last = max(place for place, turn in enumerate(turns) if turn.acknowledged)
            assert told in {turn.number for turn in turns[last:]}, "an acknowledged write is lost"
        stored = connection.execute(
            "select event_id::text from duet.interactions where actor_id between %s and %s", (5001, 5040)
        ).fetchall()
        assert writer.acknowledged <= {event_id for (event_id,) in stored}, "an acknowledged interaction is lost"
    assert writer.send_again() <= {"known", "stored"}
    with connect(stage.endpoints.database_url) as connection:
        counts = connection.execute(
            "select (select count(*) from duet.interactions where actor_id between 5001 and 5040),"
            " (select count(*) from duet.webhook_events)"
        ).fetchone()
    assert counts == (len(writer.events),) * 2, "an interaction, or what the webhook is to be told of it, is lost"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "away_s", [5, pytest.param(45, marks=pytest.mark.long), pytest.param(300, marks=pytest.mark.long)]
)
def test_answers_and_writes_are_back_after_the_database_however_long_it_was_away(stage: Stage, away_s: int) -> None:
    with stage.crowd() as crowd:
        crowd.until_whole()
        stage.postgres.set(Mode.REFUSE)
        crowd.wait(lambda: not_ready(stage), "a probe that tells of it")
        began = time.monotonic()
        until(lambda: time.monotonic() - began >= away_s, 2 * away_s)
        seen = crowd.since(began)
        stage.postgres.heal()
        crowd.until_whole()
        crowd.wait(lambda: not not_ready(stage), "a probe that lets traffic come")
    assert {answer.level for answer in seen} == {4}
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    settle_within_its_pool(stage)


def not_ready(stage: Stage) -> bool:
    return httpx.get(f"{stage.service.url}/health/ready", timeout=20, trust_env=False, verify=tls()).status_code == 503


@pytest.mark.parametrize("table", [b"duet.users", b"duet.interactions"], ids=["people", "interactions"])
def test_a_long_lock_uses_up_the_pool_and_answers_are_empty_in_time(stage: Stage, table: bytes) -> None:
    with stage.crowd(askers=8) as crowd:
        crowd.until_whole()
        with locked(stage, table):
            seen = crowd.settled(lambda answer: answer.level == 4, "empty answers", share=1.0)
        crowd.until_whole()
    stage.judge(crowd.answers)
    stage.judge_written(crowd)
    stage.judge_times(seen)
    assert {answer.body["reason"] for answer in seen} <= LATE_REASONS
    settle_within_its_pool(stage)


def statements(stage: Stage) -> set[Any]:
    """Return which statements of the service run at the server, by process and beginning."""
    with connect(stage.endpoints.database_url) as connection:
        return set(
            connection.execute(
                "select pid, query_start from pg_stat_activity where application_name = 'duet-serving'"
                " and state = 'active' and datname = current_database()"
            ).fetchall()
        )


def test_a_statement_that_was_given_up_is_ended_at_the_server_too(stage: Stage) -> None:
    with stage.crowd(askers=8) as crowd:
        crowd.until_whole()
        with locked(stage, b"duet.users"):
            crowd.settled(lambda answer: answer.level == 4, "empty answers", share=1.0)
            begun: set[Any] = set()
            until(lambda: begun.update(statements(stage)) or begun)
            until(lambda: not begun & statements(stage), instead=lambda: f"{begun & statements(stage)} still run")
        crowd.until_whole()
    stage.judge(crowd.answers)


def test_somebody_unknown_is_told_so_and_a_newcomer_without_features_is_served(stage: Stage) -> None:
    newcomer = 900
    assert ask(stage, newcomer).status == 404
    with connect(stage.endpoints.database_url) as connection:
        insert_person(connection, newcomer, gender="man", seeking=["woman"], latitude=40.0, longitude=3.0)
        connection.commit()
    answer = ask(stage, newcomer)
    assert (answer.status, answer.level) == (200, 1)
    assert answer.people
    assert {user_id % 2 for user_id in answer.people} == {1}


def test_somebody_deleted_a_second_ago_never_comes_back(stage: Stage) -> None:
    asks = next(user_id for user_id in ASKERS if len(stage.rules.everybody(user_id)) > 5)
    gone = next(iter(ask(stage, asks).people))
    seen_by = [user_id for user_id in ASKERS if stage.rules.eligible(user_id, gone)]
    with connect(stage.endpoints.database_url) as connection:
        connection.execute("delete from duet.interactions where %s in (actor_id, target_id)", (gone,))
        connection.execute("delete from duet.users where user_id = %s", (gone,))
        connection.commit()
    del stage.rules.decided[gone]
    for answer in ask_each(stage.service.port, seen_by).values():
        assert answer.status == 200
        assert gone not in answer.people
    assert ask(stage, gone).status == 404


def ask(stage: Stage, user_id: int) -> Answer:
    return ask_each(stage.service.port, [user_id])[user_id]
