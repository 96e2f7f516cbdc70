"""`duet bench index`: what it takes to rebuild the index of a world, step by step, and how good the index is."""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.console import err, out, print_note
from infra.cli.context import current_settings

_NUMBER = re.compile(r"[\d.,]+")
EPILOG = "Example: duet bench index --people 1000000 --json index.json"


@dataclass(frozen=True)
class RebuildStep:
    """One step: seconds, CPU seconds of the rebuilding process, and its largest resident memory so far."""

    step: str
    s: float
    cpu_s: float
    peak_mb: int


def merged(steps: list[RebuildStep]) -> list[RebuildStep]:
    """Return the steps with those that follow each other and differ in numbers only as one, named after the last."""
    found: list[RebuildStep] = []
    for step in steps:
        if found and _NUMBER.sub("", found[-1].step) == _NUMBER.sub("", step.step):
            last = found.pop()
            s, cpu_s = round(last.s + step.s, 2), round(last.cpu_s + step.cpu_s, 2)
            found.append(RebuildStep(step.step, s, cpu_s, step.peak_mb))
        else:
            found.append(step)
    return found


def index(  # noqa: PLR0917 - Typer reads options from the signature
    ctx: typer.Context,
    people: Annotated[int, typer.Option(min=100, max=10_000_000, help="Size of the synthetic world.")] = 10_000,
    interactions_per_person: Annotated[
        float, typer.Option(min=1, max=200, help="About how many interactions each person has.")
    ] = 10.0,
    kind: Annotated[str, typer.Option(help="Kind of the index; auto chooses by the number of people.")] = "auto",
    world_dir: Annotated[
        Path | None, typer.Option(help="Where the worlds are kept. Default: `bench` in the data folder.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
) -> None:
    """Rebuild the index of a synthetic world as the job `rebuild_index` does, in a process of its own.

    People and interactions out of Postgres, their checks, factors of everybody with decisions in the last ten days,
    clustering, filling, tuning against exact search, saving, and the trial that serving makes of a release. The world
    is that of `duet bench serving`: built the first time, used again later.
    """
    from infra.clock import SystemClock
    from infra.telemetry import disable_telemetry
    from pipelines.bench.report import machine
    from pipelines.bench.world import WorldSpec, open_world

    disable_telemetry()
    settings, clock = current_settings(ctx), SystemClock()
    root = (settings.data_dir / "bench") if world_dir is None else world_dir
    with open_world(settings, root, WorldSpec(people, interactions_per_person), clock) as (world, endpoints):
        document: dict[str, Any] = {"machine": machine(clock)}
        with tempfile.TemporaryDirectory(dir=world.settings.data_dir) as scratch:
            document |= measured(world, endpoints.database_url, Path(scratch), kind)
    _show(document)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(document, indent=2) + "\n")
        print_note(f"every figure: {json_file}")


def measured(world: Any, database_url: str, scratch: Path, kind: str) -> dict[str, Any]:
    """Rebuild the index of an open world in another process and return its steps and result.

    Raises ProcessFailed.
    """
    from pipelines.bench.errors import ProcessFailed
    from pipelines.bench.releases import directory_of
    from pipelines.bench.world import RANKER_WINDOW
    from registry.contracts import ArtifactKind

    job = {
        "database_url": database_url,
        "scratch": str(scratch),
        "until": world.until.isoformat(),
        "fitted_until": (world.until - RANKER_WINDOW).isoformat(),
        "directories": {part.value: str(directory_of(world.cache, part, 1)) for part in ArtifactKind},
        "config": {"kind": kind},
    }
    steps: list[RebuildStep] = []
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.bench.rebuild_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise ProcessFailed("The process that rebuilds the index has no pipes.")
        with process.stdin as told:
            json.dump(job, told)
        result = None
        for line in process.stdout:
            said = json.loads(line)
            result = said.get("result", result)
            if "step" in said:
                steps.append(RebuildStep(**said))
                err().print(f"[dim]{steps[-1].s:8.1f} s  {steps[-1].peak_mb:6,} MB[/]  {steps[-1].step}")
    if process.returncode or result is None:
        raise ProcessFailed(f"The process that rebuilds the index ended with status {process.returncode}: see above.")
    every = merged(steps)
    return {
        "steps": [vars(step) for step in every],
        "total_s": round(sum(step.s for step in every), 1),
        "cpu_s": round(sum(step.cpu_s for step in every), 1),
        "result": result,
    }


def _show(document: dict[str, Any]) -> None:
    from infra.cli.console import table

    place, result = document["machine"], document["result"]
    rows = [
        [step["step"], f"{step['s']:,.1f}", f"{step['cpu_s']:,.1f}", f"{step['peak_mb']:,}"]
        for step in document["steps"]
    ]
    rows.append(["all", f"{document['total_s']:,.1f}", f"{document['cpu_s']:,.1f}", f"{result['peak_mb']:,}"])
    title = (
        f"duet bench index, {place['date']}, {place['cores']} x {place['cpu']}, {place['memory_gb']:.0f} GB, "
        f"load {place['load_average'][0]:.2f}"
    )
    out().print(table(title, ["step", "s", "CPU s", "peak MB"], rows, right=range(1, 4)))
    out().print(
        f"{result['people']:,} people, {result['kind']}, {result['bytes'] / 1e6:,.0f} MB, nlist {result['nlist']}, "
        f"nprobe {result['nprobe']}: recall@{result['recall_at']} {result['recall']:.3f} at {result['search_ms']:.2f} "
        f"ms a search; {result['threads']} threads"
    )
    if result["refused"] is not None:
        out().print(f"Serving would refuse it: {result['refused']}")
