"""Rules and dashboards name metrics that exist, every metric of ours is in one of them, and no label set is open."""

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from infra.metrics import ServingMetrics, serving_metrics
from infra.monitoring.dashboards import FOLDER, as_json, described
from infra.settings import Settings
from pipelines.experiments.report import RATIO_ALPHA
from tests.architecture.sources import ROOT

RULES: list[dict[str, Any]] = [
    rule
    for path in sorted((FOLDER / "rules").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PANELS = [panel for dashboard in described().values() for row in dashboard.rows for panel in row.panels]
SHOWN = [expression for panel in PANELS for expression in panel.queries.values()]
EXPRESSIONS = [rule["expr"] for rule in RULES] + SHOWN
LABELS = {"route", "status", "stage", "level", "reason", "step", "direction", "kind", "fate", "model", "pool", "state"}
LABELS |= {"tier", "result", "dependency", "outcome", "variant", "task", "part", "measure", "stream"}
ADDED = {"pid", "instance", "job", "le"}
"""Labels that Prometheus and its library add."""
RUNBOOK = (ROOT / "infra" / "RUNBOOK.md").read_text(encoding="utf-8")


def ours() -> list[Counter | Gauge | Histogram]:
    return [getattr(serving_metrics(), name) for name in ServingMetrics.__dataclass_fields__]


def exported(metric: Counter | Gauge | Histogram) -> set[str]:
    """Names of the series of a metric."""
    name = metric.describe()[0].name
    if isinstance(metric, Counter):
        return {f"{name}_total"}
    return {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if isinstance(metric, Histogram) else {name}


def named() -> set[str]:
    return {name for expression in EXPRESSIONS for name in re.findall(r"\bduet_\w+", expression)}


def test_every_metric_that_is_watched_exists() -> None:
    assert named() <= {name for metric in ours() for name in exported(metric)}


def test_every_metric_of_ours_is_watched() -> None:
    assert not [metric.describe()[0].name for metric in ours() if not exported(metric) & named()]


def test_every_figure_that_is_asked_for_is_recorded_and_every_recorded_one_is_asked_for() -> None:
    assert {name for expression in EXPRESSIONS for name in re.findall(r"\bduet:[\w:]+", expression)} == RECORDED


def test_labels_that_are_asked_for_exist() -> None:
    by_name = {name: set(metric._labelnames) for metric in ours() for name in exported(metric)}
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"\b(duet_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= by_name[name] | ADDED, expression


def test_no_metric_has_a_label_for_people_keys_or_paths() -> None:
    assert {label for metric in ours() for label in metric._labelnames} <= LABELS


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_what_to_do_and_where_it_is_explained(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    said = dict(rule["annotations"])
    anchor = said.pop("runbook_url").removeprefix("infra/RUNBOOK.md#")
    assert set(said) == {"summary", "action"}
    assert all(text.endswith((".", ").")) for text in said.values())
    assert anchor == rule["alert"].lower()
    assert f"\n### {rule['alert']}\n" in RUNBOOK


def test_the_runbook_explains_no_alert_that_does_not_exist() -> None:
    assert set(re.findall(r"^### (Duet\w+)$", RUNBOOK, re.MULTILINE)) == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_the_runbook_says_how_every_alert_was_brought_about_and_when(rule: dict[str, Any]) -> None:
    section = RUNBOOK.partition(f"\n### {rule['alert']}\n")[2].partition("\n#")[0]
    assert re.search(r"\n\*Drill:\*.+?\*\*Executed\*\*\s20\d\d-\d\d-\d\d\b", section, re.DOTALL), section


def test_alerts_and_panels_have_names_of_their_own() -> None:
    for names in ([rule["alert"] for rule in ALERTS], [panel.title for panel in PANELS if panel.title]):
        twice = {name for name in names if names.count(name) > 1}
        assert twice <= {"Answers that a model failed"}  # for whoever is on call, and for whoever made the model


@pytest.mark.parametrize("name", described())
def test_the_files_of_grafana_are_those_that_are_described(name: str) -> None:
    written = (FOLDER / "grafana" / "dashboards" / f"{name}.json").read_text(encoding="utf-8")
    assert written == as_json(described()[name]), "run `python -m infra.monitoring.dashboards`"
    ids = [panel["id"] for panel in json.loads(written)["panels"]]
    assert len(set(ids)) == len(ids)


def test_limits_in_alerts_are_those_of_the_code() -> None:
    rules = {rule["alert"]: rule["expr"] for rule in ALERTS}
    assert f"< {RATIO_ALPHA:g}" in rules["DuetSampleRatio"]
    assert f"> {Settings().automation.drift_psi:g}" in rules["DuetDrift"]
    assert f"> {Settings().postgres.replica_max_lag_s:g}" in rules["DuetReplicaLags"]
