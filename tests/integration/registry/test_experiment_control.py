import asyncio
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from infra.cli.app import build_app
from infra.db.postgres import open_pool
from infra.endpoints import Endpoints
from infra.settings import Settings
from registry.errors import ExperimentActive, NoSuchExperiment
from registry.experiments.table import (
    By,
    ExperimentState,
    experiment_events,
    list_experiments,
    set_share,
    start_experiment,
    stop_experiment,
)
from serving.experiments.assignment import Experiment
from serving.experiments.table import ACTIVE, Experiments

ANNA = By("anna")


def active(endpoints: Endpoints, settings: Settings) -> Experiment | None:
    """Look as a serving worker does."""

    async def look() -> Experiment | None:
        async with open_pool(endpoints.database_url, settings.postgres) as pool:

            async def read() -> list[tuple[Any, ...]]:
                async with pool.connection() as connection:
                    return await (await connection.execute(ACTIVE)).fetchall()

            experiments = Experiments(read, 1.0)
            await experiments.refresh()
            assert experiments.problem is None
            return experiments.active

    return asyncio.run(look())


@pytest.fixture
def desk(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    connection.commit()
    connection.autocommit = True
    return connection


def test_a_started_experiment_is_seen_by_workers_with_its_share(
    desk: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings
) -> None:
    assert active(endpoints, settings) is None
    start_experiment(desk, "taste", share=0.1, state=ExperimentState.RUNNING, by=ANNA)
    first = active(endpoints, settings)
    assert first is not None
    assert (first.name, first.state, round(first.challenger_share, 6)) == ("taste", ExperimentState.RUNNING, 0.1)
    set_share(desk, "taste", 0.5, by=ANNA)
    second = active(endpoints, settings)
    assert second is not None
    assert (second.salt, second.challenger_share) == (first.salt, 0.5)
    stop_experiment(desk, "taste", by=ANNA)
    assert active(endpoints, settings) is None


def test_starting_again_assigns_the_same_people_and_another_experiment_others(
    desk: psycopg.Connection[Any], endpoints: Endpoints, settings: Settings
) -> None:
    salts = []
    for name in ("taste", "taste", "smell"):
        start_experiment(desk, name, share=0.2, state=ExperimentState.SHADOW, by=ANNA)
        found = active(endpoints, settings)
        assert found is not None
        salts.append(found.salt)
        stop_experiment(desk, name, by=ANNA)
    assert salts[0] == salts[1] != salts[2]


def test_there_is_only_one_active_experiment(desk: psycopg.Connection[Any]) -> None:
    start_experiment(desk, "taste", share=0.1, state=ExperimentState.RUNNING, by=ANNA)
    with pytest.raises(ExperimentActive, match="`taste` is active"):
        start_experiment(desk, "smell", share=0.1, state=ExperimentState.RUNNING, by=ANNA)
    assert [one.name for one in list_experiments(desk)] == ["taste"]


def test_an_experiment_that_is_not_there_cannot_be_changed(desk: psycopg.Connection[Any]) -> None:
    with pytest.raises(NoSuchExperiment):
        set_share(desk, "taste", 0.5, by=ANNA)
    with pytest.raises(NoSuchExperiment):
        stop_experiment(desk, "taste", by=ANNA)


def test_every_change_leaves_an_event_that_says_who_and_why(desk: psycopg.Connection[Any]) -> None:
    start_experiment(desk, "taste", share=0.25, state=ExperimentState.RUNNING, by=By("anna", reason="the new ranker"))
    set_share(desk, "taste", 0.5, by=By("ben"))
    assert stop_experiment(desk, "taste", by=By("dagster:guard", "automation", "errors"))
    assert not stop_experiment(desk, "taste", by=By("ben"))
    assert [
        (one.kind, one.state, one.challenger_share, one.actor, one.way, one.reason)
        for one in experiment_events(desk, "taste")
    ] == [
        ("start", "running", 0.25, "anna", "cli", "the new ranker"),
        ("share", "running", 0.5, "ben", "cli", ""),
        ("stop", "off", 0.5, "dagster:guard", "automation", "errors"),
    ]


def test_a_refused_start_leaves_no_event(desk: psycopg.Connection[Any]) -> None:
    start_experiment(desk, "taste", share=0.1, state=ExperimentState.RUNNING, by=ANNA)
    with pytest.raises(ExperimentActive):
        start_experiment(desk, "smell", share=0.1, state=ExperimentState.RUNNING, by=ANNA)
    assert experiment_events(desk, "smell") == []


@pytest.mark.parametrize(
    "statement",
    ["update duet.experiment_events set actor = 'me'", "delete from duet.experiment_events"],
)
def test_an_event_cannot_be_changed(desk: psycopg.Connection[Any], statement: str) -> None:
    start_experiment(desk, "taste", share=0.1, state=ExperimentState.RUNNING, by=ANNA)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append only"):
        desk.execute(statement)


def test_the_command_line_starts_changes_shows_and_stops(
    desk: psycopg.Connection[Any], connected_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connected_settings.database_url is not None
    assert connected_settings.redis_url is not None
    monkeypatch.setenv("DUET_DATABASE_URL", connected_settings.database_url.get_secret_value())
    monkeypatch.setenv("DUET_REDIS_URL", connected_settings.redis_url.get_secret_value())
    monkeypatch.setenv("DUET_DATA_DIR", str(connected_settings.data_dir))
    monkeypatch.setenv("DUET_MLFLOW__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("DUET_MLFLOW__REQUEST_TIMEOUT_S", "1")

    def duet(*arguments: str) -> str:
        done = CliRunner().invoke(build_app(), ["experiment", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    said = duet("start", "taste", "--share", "0.1")
    assert "10.0% get the challenger" in said
    assert "Everybody gets the champion until this is mended" in said
    duet("set-share", "taste", "0.25")
    shown = duet("show")
    assert "running" in shown
    assert "25.0%" in shown
    duet("stop", "taste")
    assert "off" in duet("show")
    assert "ranks in the shadow" in duet("start", "taste", "--shadow")
