"""A SIGKILL in the middle of an import leaves nothing half, and running it again completes it."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.endpoints import Endpoints
from pipelines.ingest.tables import import_tables
from pipelines.ingest.world.world_import import import_synthetic
from tests.clocks import FixedClock

_COUNTS = (
    "select (select count(*) from duet.users), (select count(*) from duet.interactions), "
    "(select count(*) from duet.imports), (select count(*) from duet.quarantine), "
    "(select count(*) from pg_constraint where conrelid = 'duet.interactions'::regclass)"
)

# Each script reports its first progress and then waits in the middle of the open transaction.
_SCRIPT = """
import sys, time
from pathlib import Path
from infra.clock import SystemClock
from infra.db.postgres import connect
from pipelines.ingest.tables import import_tables
from pipelines.ingest.world.world_import import import_synthetic

what, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])

def stop(name, done, total):
    if name == "interactions":
        print("in the middle", flush=True)
        time.sleep(60)

with connect(url) as connection:
    if what == "tables":
        import_tables(connection, people=folder / "people.csv", interactions=folder / "interactions.csv",
                      data_dir=folder, clock=SystemClock(), progress=stop)
    else:
        import_synthetic(connection, people=200, seed=1, interactions_per_person=5, days=30, data_dir=folder,
                         clock=SystemClock(), progress=stop)
"""


@pytest.mark.parametrize("what", ["tables", "synthetic"])
def test_a_killed_import_leaves_nothing_and_a_second_run_completes(
    connection: psycopg.Connection[Any], endpoints: Endpoints, clock: FixedClock, tmp_path: Path, what: str
) -> None:
    (tmp_path / "people.csv").write_text("user_id\n1\n2\nx\n")
    (tmp_path / "interactions.csv").write_text("actor,target,kind,time\n1,2,like,2026-01-01\n")
    before = connection.execute(_COUNTS).fetchone()
    connection.commit()
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, what, endpoints.database_url, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    _wait_until_released(connection)
    assert connection.execute(_COUNTS).fetchone() == before
    connection.commit()
    assert not list(tmp_path.glob("quarantine/*"))
    if what == "tables":
        report = import_tables(
            connection,
            people=tmp_path / "people.csv",
            interactions=tmp_path / "interactions.csv",
            data_dir=tmp_path,
            clock=clock,
        )
        assert (report.people.new, report.interactions.new, report.n_quarantined) == (2, 1, 1)
    else:
        report = import_synthetic(
            connection, people=200, seed=1, interactions_per_person=5, days=30, data_dir=tmp_path, clock=clock
        )
        assert report.people.new == 200


def _wait_until_released(connection: psycopg.Connection[Any]) -> None:
    """Wait for the server to notice that the client is gone: it then rolls the transaction back."""
    for _ in range(200):
        held = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
            "and backend_type = 'client backend' and xact_start is not null"
        ).fetchone()
        connection.commit()
        if held == (0,):
            return
        time.sleep(0.1)
    pytest.fail("the server still holds the killed import's transaction")
