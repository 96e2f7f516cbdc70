"""The read-out in Dagster and MLflow: one run of the job on real servers."""

from datetime import timedelta
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest

from infra.clock import SystemClock
from infra.endpoints import Endpoints
from infra.settings import Settings
from pipelines.definitions import build_definitions
from pipelines.resources import Platform
from tests.clocks import FixedClock
from tests.experiment_rows import TARGETS, Diary, begin

NOW = SystemClock().now()
HOUR = timedelta(hours=1)


@pytest.fixture
def reported(
    connection: psycopg.Connection[Any], mlflow_endpoints: Endpoints, settings: Settings
) -> dg.ExecuteInProcessResult:
    begin(connection, NOW - 10 * HOUR)
    diary = Diary(connection)
    for user_id in range(1, 141):
        arm, liked = ("challenger", 2) if user_id % 2 else ("champion", 1)
        shown = [TARGETS + place for place in range(4)]
        diary.answer(user_id, NOW - user_id / 16 * HOUR, arm=arm, shown=shown, liked=shown[:liked])
    diary.write()
    job = build_definitions(Platform(settings, mlflow_endpoints, FixedClock(NOW))).resolve_job_def(
        "read_out_experiment"
    )
    return job.execute_in_process(run_config={"ops": {"experiment_report": {"config": {"experiment": "taste"}}}})


def test_the_asset_shows_table_plots_and_decision_and_links_a_run_of_mlflow_that_holds_them(
    reported: dg.ExecuteInProcessResult, mlflow_endpoints: Endpoints
) -> None:
    (made,) = reported.asset_materializations_for_node("experiment_report")
    shown = made.metadata
    assert "no decision yet" in str(shown["decision"].value)
    rows = {record.data["figure"]: record.data for record in shown["table"].value.records}
    assert rows["people"]["challenger"] == "70"
    assert str(rows["like rate"]["challenger"]).startswith("0.5000 (")
    assert str(rows["like rate"]["champion"]).startswith("0.2500 (")
    plots = [name for name in shown if name.startswith("plot")]
    assert plots == ["plot: like rate difference", "plot: match rate difference", "plot: rates"]
    assert all("data:image/png;base64," in str(shown[name].value) for name in plots)
    run_id = str(shown["mlflow"].value).rpartition("/")[2].partition("?")[0]
    answer = httpx.get(
        f"{mlflow_endpoints.mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=30
    ).json()["run"]
    metrics = {metric["key"]: metric["value"] for metric in answer["data"]["metrics"]}
    assert metrics["challenger.like_rate"] == pytest.approx(0.5)
    assert metrics["like_rate.difference"] == pytest.approx(0.25)
    tags = {tag["key"]: tag["value"] for tag in answer["data"]["tags"]}
    assert (tags["experiment"], tags["decision"]) == ("taste", "no decision yet")
    assert tags["dagster_run_id"] == reported.run_id
