"""Alerts and dashboard name metrics that exist, every metric of ours is in one of them, and no label set is open."""

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from infra.metrics import ServingMetrics, serving_metrics
from tests.architecture.sources import ROOT

FOLDER = ROOT / "infra" / "monitoring"
GROUPS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [t["expr"] for panel in PANELS for t in panel["targets"]]
LABELS = {"route", "status", "stage", "level", "reason", "step", "direction", "kind", "fate", "model", "pool", "state"}
LABELS |= {"tier", "result", "dependency", "outcome", "variant", "task"}


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


def test_labels_that_are_asked_for_exist() -> None:
    by_name = {name: set(metric._labelnames) for metric in ours() for name in exported(metric)}
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"\b(duet_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= by_name[name], expression


def test_no_metric_has_a_label_for_people_keys_or_paths() -> None:
    assert {label for metric in ours() for label in metric._labelnames} <= LABELS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "action"}
    assert all(text.endswith(".") for text in rule["annotations"].values())
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))


def test_alerts_and_panels_have_names_of_their_own() -> None:
    for names in ([rule["alert"] for rule in RULES], [panel["title"] for panel in PANELS]):
        assert len(names) == len(set(names))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
