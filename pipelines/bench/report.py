"""What was measured, as a table for people and as a document for programs."""

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
from rich.table import Table

from infra.cli.console import table
from infra.clock import Clock
from pipelines.bench.figures import exponent, log_linear

_VERSIONS: Final = ("duet", "bentoml", "faiss-cpu", "feast", "numpy", "psycopg", "redis")
_STAGES: Final = ("p50", "p95", "p99")


def machine(clock: Clock) -> dict[str, Any]:
    """Return where and when this is measured, and how busy the machine was."""
    import xgboost

    return {
        "date": clock.now().isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        # XGBoost has builds under several names.
        "versions": {name: version(name) for name in _VERSIONS} | {"xgboost": xgboost.__version__},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def growth(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how costs grow from the smallest to the largest size: the power, and what n log n would have given."""
    ordered = sorted(sizes, key=lambda size: int(size["people"]))
    small, large = ordered[0], ordered[-1]
    if small["people"] == large["people"]:
        return {}
    found = {}
    costs: dict[str, Callable[[dict[str, Any]], Any]] = {
        "p50 at the lowest concurrency": lambda size: size["uncached"][0]["p50"],
        "CPU per answer": lambda size: size["uncached"][-1]["cpu_ms"],
        "p50 of the naive composition": lambda size: size.get("naive", {}).get("p50", 0.0),
    }
    for name, cost in costs.items():
        before, after = float(cost(small)), float(cost(large))
        if before and after:
            found[name] = {
                "from_ms": before,
                "to_ms": after,
                "power": exponent((small["people"], before), (large["people"], after)),
                "n_log_n_ms": round(log_linear(small["people"], before, large["people"]), 1),
            }
    return found


def ratios(size: dict[str, Any]) -> dict[str, float]:
    """Return how many times better than the naive composition the service is; empty without it."""
    naive = size.get("naive")
    if naive is None:
        return {}
    best = max(float(run["per_s"]) for run in size["uncached"])
    return {
        "throughput": round(best / naive["per_s"], 2),
        "p50": round(naive["p50"] / size["uncached"][0]["p50"], 2),
        "cpu": round(naive["cpu_ms"] / size["uncached"][-1]["cpu_ms"], 2),
    }


def tables(document: dict[str, Any]) -> list[Table]:
    """Return the tables that people read: one of figures by size, one of stages, one of growth."""
    sizes = document["sizes"]
    names = [f"{size['people']:,}" for size in sizes]
    rows: list[list[str]] = []

    def row(name: str, values: Sequence[str]) -> None:
        rows.append([name, *values])

    for number, run in enumerate(sizes[0]["uncached"]):
        of = [size["uncached"][number] for size in sizes]
        what = f"uncached, concurrency {run['concurrency']}"
        row(f"{what}: p50 / p95 / p99 ms", [_triple(one) for one in of])
        row(f"{what}: answers/s", [f"{one['per_s']:,.0f}" for one in of])
        row(f"{what}: CPU ms per answer (service + Postgres; client)", [
            f"{one['service_cpu_ms']:.2f} + {one['postgres_cpu_ms']:.2f}; {one['client_cpu_ms']:.2f}" for one in of
        ])  # fmt: skip
    row("open loop: rate/s, p50 / p95 / p99 ms", [
        f"{size['open_loop']['rate']:.0f}/s, {_triple(size['open_loop'])}" for size in sizes
    ])  # fmt: skip
    for number, run in enumerate(sizes[0]["cached"]):
        of = [size["cached"][number] for size in sizes]
        row(f"cached, concurrency {run['concurrency']}: p50 / p95 / p99 ms", [_triple(one) for one in of])
        row(f"cached, concurrency {run['concurrency']}: answers/s", [f"{one['per_s']:,.0f}" for one in of])
    if any(size.get("refused") for size in sizes):
        row("refused or late at its limit, answers", [f"{sum(size.get('refused', {}).values()):,}" for size in sizes])
    row("ready / full answers, cold start, s", [_start(size["cold_start"]) for size in sizes])
    row("ready / full answers, warm start, s", [_start(size["warm_start"]) for size in sizes])
    row("private + shared MB per worker", [
        "; ".join(f"{one['private_mb']:,.0f} + {one['shared_mb']:,.0f}" for one in size["memory"]) for size in sizes
    ])  # fmt: skip
    if "overload" in sizes[0]:
        row("3x overload: goodput/s (share), recovery s", [
            f"{size['overload']['goodput_per_s']:,.0f} ({size['overload']['goodput_share']:.0%}), "
            f"{_seconds(size['overload']['recovery_s'])}"
            for size in sizes
        ])  # fmt: skip
    if "swap" in sizes[0]:
        row("release swap: p99 before / around / ratio, took s", [
            f"{size['swap']['p99_before_ms']:.1f} / {size['swap']['p99_around_ms']:.1f} / {size['swap']['ratio']:.1f}, "
            f"{size['swap']['took_s']:.1f}"
            for size in sizes
        ])  # fmt: skip
    if "naive" in sizes[0]:
        row("naive composition: p50 / p95 / p99 ms", [_triple(size["naive"]) for size in sizes])
        row("naive composition: answers/s", [f"{size['naive']['per_s']:,.1f}" for size in sizes])
        row("times better: throughput, p50, CPU", [
            ", ".join(f"{value:.1f}" for value in size["ratios"].values()) for size in sizes
        ])  # fmt: skip
    place = document["machine"]
    title = (
        f"duet bench serving, {place['date']}, {place['cores']} x {place['cpu']}, {place['memory_gb']:.0f} GB, "
        f"load {place['load_average'][0]:.2f}"
    )
    drawn = [table(title, ["figure", *(f"{name} people" for name in names)], rows, right=range(1, len(names) + 1))]
    drawn.append(_stages(sizes, names))
    if document["growth"]:
        grown = [
            [
                name,
                f"{cost['from_ms']:.2f}",
                f"{cost['to_ms']:.2f}",
                f"n^{cost['power']:.2f}",
                f"{cost['n_log_n_ms']:,.0f}",
            ]
            for name, cost in document["growth"].items()
        ]
        columns = ["cost", f"{names[0]} people, ms", f"{names[-1]} people, ms", "grows like", "n log n would be, ms"]
        drawn.append(table("Growth", columns, grown, right=range(1, 5)))
    return drawn


def _stages(sizes: Sequence[dict[str, Any]], names: Sequence[str]) -> Table:
    stages = list(sizes[0]["uncached"][0]["stages_ms"])
    rows = [[stage, *(_triple(size["uncached"][0]["stages_ms"].get(stage, {})) for size in sizes)] for stage in stages]
    title = f"Stages of an uncached answer at concurrency {sizes[0]['uncached'][0]['concurrency']}: p50 / p95 / p99 ms"
    return table(title, ["stage", *(f"{name} people" for name in names)], rows, right=range(1, len(names) + 1))


def _triple(of: dict[str, Any]) -> str:
    return " / ".join(f"{of[name]:.1f}" if of[name] >= 10 else f"{of[name]:.2f}" for name in _STAGES) if of else "-"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


def _start(of: dict[str, float]) -> str:
    return f"{of['ready_s']:.1f} / {of['full_s']:.1f}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())
