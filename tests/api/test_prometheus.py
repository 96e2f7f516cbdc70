"""A real Prometheus that asks the served app: our rules load, and every query of every dashboard brings data."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from infra.monitoring.dashboards import described
from registry.measurements import Measure, StoredMeasurement, keep_measurement
from tests.api.conftest import Served
from tests.prometheus import WINDOW, watching
from tests.waiting import until

QUERIES = {
    f"{dashboard.title}: {panel.title}: {legend}": expression.replace("$__rate_interval", WINDOW)
    for dashboard in described().values()
    for row in dashboard.rows
    for panel in row.panels
    for legend, expression in panel.queries.items()
}


def test_every_query_of_every_dashboard_brings_data_and_no_rule_fails(
    town: Served, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for measure in Measure:
        keep_measurement(connection, StoredMeasurement(measure, 0.5, "a test", datetime.now(UTC)))
    connection.commit()
    missing = dict(QUERIES)
    with watching(town.client.base_url.port or 80, tmp_path) as prometheus:

        def all_bring_data() -> bool:
            for user_id in (1, 1, 2):
                town.recommend(user_id)
            like = {"actor_id": 1, "target_id": 2, "kind": "like"}
            town.client.post("/v1/interactions", json=like).raise_for_status()
            for name in [name for name, query in missing.items() if prometheus.answers(query)]:
                del missing[name]
            return not missing

        until(all_bring_data, instead=lambda: f"no data: {missing}")
        rules = prometheus.rules()
        assert len(rules) > 60
        assert not [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"]
