"""Dagster's notes in Postgres: one connection for all of a process, and another when that one is gone."""

import gc
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy import event
from sqlalchemy.engine import Engine

from infra.db.postgres import connect
from infra.endpoints import Endpoints
from pipelines.resources import Platform
from pipelines.runs.running import open_instance
from tests.conftest import make_settings


def test_one_connection_serves_every_statement_until_the_server_ends_it(endpoints: Endpoints, tmp_path: Path) -> None:
    opened: list[object] = []

    def count(connection: object, *_: object) -> None:
        opened.append(connection)

    with open_instance(Platform(make_settings(tmp_path), endpoints)) as instance:
        # An instance of a test before may have left its connection to this process.
        instance.get_runs(limit=1)
        event.listen(Engine, "connect", count)
        try:
            for _ in range(5):
                instance.get_runs(limit=1)
                instance.all_asset_keys()
                instance.get_daemon_statuses()
            assert opened == []
            with connect(endpoints.database_url, autocommit=True) as other:
                other.execute(
                    "select pg_terminate_backend(pid, 60000) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            instance.get_runs(limit=1)
            assert len(opened) == 1
        finally:
            event.remove(Engine, "connect", count)


def test_instances_that_a_server_makes_for_ticks_use_its_connection_however_late_they_are_collected(
    endpoints: Endpoints, tmp_path: Path
) -> None:
    opened: list[Any] = []

    def count(connection: Any, *_: object) -> None:
        opened.append(connection)

    with open_instance(Platform(make_settings(tmp_path), endpoints)) as server:
        server.get_runs(limit=1)
        event.listen(Engine, "connect", count)
        gc.disable()
        try:
            for _ in range(5):
                # As the code server does for each tick of a schedule or sensor.
                with dg.DagsterInstance.from_ref(server.get_ref()) as instance:
                    instance.get_runs(limit=1)
            assert [connection for connection in opened if not connection.closed] == []
        finally:
            gc.enable()
            event.remove(Engine, "connect", count)
