"""Grafana's dashboards, made from short descriptions in `dashboards/*.yaml`.

`python -m infra.monitoring.dashboards` writes `grafana/*.json` anew; a test keeps the two the same.
"""

import json
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

FOLDER: Final = Path(__file__).parent
_WIDTH: Final = 24
_HEIGHT: Final = 8
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Panel(_Described):
    """One panel: `queries` maps what a line is called to what it shows, in PromQL; `unit` is one of Grafana's."""

    title: str
    queries: dict[str, str] = Field(min_length=1)
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""


class Row(_Described):
    """Panels side by side under one heading."""

    title: str
    panels: list[Panel] = Field(min_length=1)


class Dashboard(_Described):
    """One dashboard as it is described."""

    title: str
    uid: str
    range: str = "now-6h"
    refresh: str = "30s"
    rows: list[Row] = Field(min_length=1)


def described() -> dict[str, Dashboard]:
    """Return every dashboard that is described, by the name of its file."""
    paths = sorted((FOLDER / "dashboards").glob("*.yaml"))
    return {path.stem: Dashboard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths}


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        panels.append(_framed(len(panels), "row", row.title, x=0, y=y, width=_WIDTH, height=1) | {"panels": []})
        y += 1
        in_line = 4 if len(row.panels) > 3 else len(row.panels)
        width = _WIDTH // in_line
        for place, panel in enumerate(row.panels):
            if place and place % in_line == 0:
                y += _HEIGHT
            panels.append(_panel(panel, len(panels), x=place % in_line * width, y=y, width=width))
        y += _HEIGHT
    return {
        "title": dashboard.title,
        "uid": dashboard.uid,
        "tags": ["duet"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": dashboard.refresh,
        "time": {"from": dashboard.range, "to": "now"},
        "annotations": {"list": []},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": panels,
    }


def as_json(dashboard: Dashboard) -> str:
    """Return the text of a dashboard's file."""
    return json.dumps(rendered(dashboard), indent=1) + "\n"


def _panel(panel: Panel, number: int, *, x: int, y: int, width: int) -> dict[str, Any]:
    framed = _framed(number, panel.kind, panel.title, x=x, y=y, width=width, height=_HEIGHT)
    return framed | {
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def _framed(number: int, kind: str, title: str, *, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number + 1, "type": kind, "title": title, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def write() -> None:
    """Write the file of every dashboard."""
    for name, dashboard in described().items():
        (FOLDER / "grafana" / "dashboards" / f"{name}.json").write_text(as_json(dashboard), encoding="utf-8")


if __name__ == "__main__":
    write()
