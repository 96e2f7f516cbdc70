"""Prometheus' and Alertmanager's own tools on our rules: every alert fires when it should, and only then."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.sources import ROOT

FOLDER = ROOT / "infra" / "monitoring"
RULES = sorted((FOLDER / "rules").glob("*.yaml"))
CASES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8"))
ALERTS = {
    rule["alert"]: path.name
    for path in RULES
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def tool(name: str) -> str:
    """Return the path of a tool of Prometheus' packages; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"`{name}` is not installed: Debian's packages prometheus and prometheus-alertmanager have it")
    return found


def run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def as_promtool_reads_it(name: str, case: dict[str, Any], *, fires: bool) -> dict[str, Any]:
    alert = name.partition(" ")[0]
    step = case.get("step", "1m")
    return {
        "name": f"{name}: {'fires' if fires else 'quiet'}",
        "interval": step,
        "input_series": [
            {"series": series, "values": str(values)} for series, values in case["fires" if fires else "quiet"].items()
        ],
        "promql_expr_test": [
            {
                "expr": f'group(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": case["at"],
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
    }


def test_every_alert_has_a_case() -> None:
    assert {name.partition(" ")[0] for name in CASES} == set(ALERTS)


@pytest.mark.parametrize(
    ("step", "files"),
    [("1m", ("alerts.yaml", "recording.yaml")), ("1h", ("alerts.yaml",)), ("1m", ("objectives.yaml",))],
)
def test_every_alert_fires_on_its_case_and_not_beside_it(step: str, files: tuple[str, ...], tmp_path: Path) -> None:
    # Every rule is evaluated at every step of every case: cases of days take steps of hours, and only the rules needed.
    tests = [
        as_promtool_reads_it(name, case, fires=fires)
        for name, case in CASES.items()
        if case.get("step", "1m") == step and ALERTS[name.partition(" ")[0]] in files
        for fires in (True, False)
    ]
    assert tests
    rules = [str(path) for path in RULES if path.name in files]
    written = tmp_path / "cases.yaml"
    written.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": step, "tests": tests}))
    run(tool("promtool"), "test", "rules", written)


def test_the_rules_and_configurations_are_valid(tmp_path: Path) -> None:
    run(tool("promtool"), "check", "rules", *RULES)
    run(tool("promtool"), "check", "config", "--syntax-only", FOLDER / "prometheus.yaml")
    run(tool("amtool"), "check-config", FOLDER / "alertmanager.yaml")


@pytest.mark.parametrize(("severity", "receiver"), [("page", "pages"), ("ticket", "tickets")])
def test_an_alert_reaches_whom_its_severity_names(severity: str, receiver: str) -> None:
    configuration = FOLDER / "alertmanager.yaml"
    run(
        tool("amtool"), "config", "routes", "test", f"--config.file={configuration}",
        f"--verify.receivers={receiver}", "alertname=DuetErrors", f"severity={severity}",
    )  # fmt: skip
