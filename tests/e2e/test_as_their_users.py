"""What a user of each framework does on the first day, with that framework's own commands and calls."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from feature_repo.layout import ACTIVITY
from infra.endpoints import Endpoints
from tests.architecture.sources import ROOT

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
NOW = datetime.now(UTC)


def feast(endpoints: Endpoints, *arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("feast")), "-c", "feature_repo", *arguments],
        cwd=ROOT,
        env={**os.environ, **endpoints.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_feast_applies_lists_and_materialises_the_catalogue(
    endpoints: Endpoints, connection: psycopg.Connection[Any], redis_client: redis.Redis
) -> None:
    at = NOW - timedelta(days=1)
    row = [float(value) for value in ACTIVITY.default_row]
    row[ACTIVITY.index("likes_sent_7d")] = 5.0
    connection.execute("insert into features.user_activity values (42, %s, %s, %s)", (at, at, row))
    connection.commit()
    feast(endpoints, "apply")
    listed = feast(endpoints, "feature-views", "list")
    assert {"user_profile", "user_attributes", "user_activity", "user_reciprocity"} <= set(listed.split())
    feast(endpoints, "materialize-incremental", NOW.strftime("%Y-%m-%dT%H:%M:%S"))
    assert redis_client.dbsize() == 1
