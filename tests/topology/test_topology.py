"""The platform of `infra/compose` as processes of Debian's packages: `make topology`, a quarter of an hour.

Each service has a network namespace of its own with the address and the name that Compose gives it, and reads the very
files that Compose mounts. What is not run: the object store, Prometheus with its companions, and the images themselves.
"""

import json
import subprocess
from typing import Any

import pytest

from tests.architecture.sources import ROOT
from tests.topology import apart
from tests.topology.load import ENOUGH

LIMIT_S = 2400

pytestmark = [pytest.mark.long, pytest.mark.timeout(LIMIT_S)]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    if (absent := apart.missing()) is not None:
        pytest.skip(absent)
    with apart.folder("duet-topology-") as folder:
        words = apart.command("tests.topology.story", folder)
        done = subprocess.run(words, cwd=ROOT, env=apart.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert "failure" not in found, found["failure"]
    return found


def test_the_platform_comes_up_and_a_first_answer_is_of_both_stages(
    seen: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(json.dumps(seen, indent=1))  # noqa: T201 the figures that a person reads
    assert set(seen["up_after_s"]) >= {
        "postgres-standby",
        "pgbouncer",
        "mlflow",
        "dagster-daemon",
        "serving-2",
        "proxy",
    }
    assert (seen["first"]["status"], seen["first"]["level"], len(seen["first"]["items"])) == (200, 1, 5)


def test_a_promotion_and_a_rollback_reach_every_replica(seen: dict[str, Any]) -> None:
    first, second, third = seen["releases"]
    assert first != second
    assert third == first


def test_what_is_not_for_everybody_is_closed_at_the_proxy(seen: dict[str, Any]) -> None:
    pages = seen["pages"]
    assert (pages["mlflow"], pages["dagster"], pages["metrics"]) == (401, 401, 404)
    assert pages["models"] == ["duet-embedding", "duet-index", "duet-ranker"]
    assert pages["locations"] == [{"name": "duet", "loadStatus": "LOADED"}]


def test_nothing_that_stays_connected_is_the_owner_of_the_database(seen: dict[str, Any]) -> None:
    assert seen["roles"] == ["duet_mlflow", "duet_pipelines", "duet_serving"]


def test_postgres_ends_what_a_client_of_the_pooler_has_given_up(seen: dict[str, Any]) -> None:
    assert seen["abandoned"] == 0


@pytest.mark.parametrize("name", ["serving-1", "postgres-standby", "pgbouncer", "redis"])
def test_nobody_gets_an_error_when_one_of_them_is_killed(seen: dict[str, Any], name: str) -> None:
    death = seen["deaths"][name]
    for outcomes in (death["without"], death["returning"]):
        assert {outcome.partition(" ")[0] for outcome in outcomes} == {"200"}, outcomes
        assert sum(outcomes.values()) >= ENOUGH


@pytest.mark.parametrize(("name", "level"), [("serving-1", 1), ("postgres-standby", 1), ("pgbouncer", 4), ("redis", 1)])
def test_each_death_costs_what_the_readme_says(seen: dict[str, Any], name: str, level: int) -> None:
    assert f"200 level {level}" in seen["deaths"][name]["without"]
