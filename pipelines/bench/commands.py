"""`duet bench`: how fast the serving app is here, and how much faster than what a tutorial would have written.

Nothing heavy is imported here; the command loads what it needs when it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.console import out, print_note
from infra.cli.context import current_settings
from pipelines.bench import rebuild

if TYPE_CHECKING:
    from infra.settings import Settings
    from pipelines.bench.measure import Options

_EPILOG = (
    "Examples:\n\n"
    "duet bench serving --people 10000 --seconds 5 --repeat 1 --no-swap     a first look, three minutes\n\n"
    "duet bench serving --people 10000,100000,1000000 --json bench.json     everything, about an hour the first time"
)


def register_bench(app: typer.Typer) -> None:
    """Add the group `bench` to the `duet` command."""
    group = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
    group.callback()(_bench)
    group.command("serving", epilog=_EPILOG)(serving)
    group.command("index", epilog=rebuild.EPILOG)(rebuild.index)
    app.add_typer(group, name="bench")


def _bench() -> None:
    """Measure on this machine."""


def serving(  # noqa: PLR0917 - Typer reads options from the signature
    ctx: typer.Context,
    people: Annotated[str, typer.Option(help="Sizes of the synthetic worlds, separated by commas.")] = "10000",
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="Length of each load.")] = 10.0,
    concurrency: Annotated[
        str, typer.Option(help="Requests under way at once in the closed loops, separated by commas.")
    ] = "1,16",
    rate: Annotated[
        str, typer.Option(help="Requests per second of the open loop; auto is 60 % of the best closed loop.")
    ] = "auto",
    repeat: Annotated[int, typer.Option(min=1, max=100, help="Repetitions of each closed loop; medians count.")] = 3,
    naive: Annotated[bool, typer.Option(help="Measure the naive composition of the same libraries too.")] = True,
    overload: Annotated[
        bool, typer.Option(help="Offer three times what the service can do, and watch it recover.")
    ] = True,
    swap: Annotated[bool, typer.Option(help="Promote another release under load; starts an MLflow server.")] = True,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes of the service.")] = 1,
    interactions_per_person: Annotated[
        float, typer.Option(min=1, max=200, help="About how many interactions each person has.")
    ] = 10.0,
    world_dir: Annotated[
        Path | None, typer.Option(help="Where the worlds are kept. Default: `bench` in the data folder.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
) -> None:
    """Measure the serving app on synthetic worlds: latency, throughput, memory, start-up, overload and a release swap.

    Builds a world of each size with a database, a Redis and a release of its own (nothing of yours is touched), or
    uses the one that is there. Starts the service as `duet up` does and drives it over HTTP from another process: a
    closed loop says what it can do, an open loop at a constant rate what its users would feel, counted from the
    instant each request was due. Every answer is checked; wrong ones end the command with exit code 1. Being refused
    or late is not wrong where the load seeks the limit (several at once, overload), and is counted; at the constant
    rate it is.

    The client, Postgres and Redis share this machine with the service: leave it alone while it measures.
    """
    from pipelines.bench.measure import Options

    options = Options(
        seconds=seconds,
        concurrency=tuple(_numbers(concurrency, "--concurrency", 1, 512)),
        rate=None if rate == "auto" else _rate(rate),
        repeat=repeat,
        workers=workers,
        naive=naive,
        overload=overload,
        swap=swap,
    )
    settings = current_settings(ctx)
    root = (settings.data_dir / "bench") if world_dir is None else world_dir
    document = _measured(
        settings, root, _numbers(people, "--people", 100, 10_000_000), options, interactions_per_person
    )
    _finish(document, json_file)


def _measured(
    settings: Settings, root: Path, sizes: list[int], options: Options, interactions_per_person: float
) -> dict[str, Any]:
    from dataclasses import asdict

    from infra.clock import SystemClock
    from infra.telemetry import disable_telemetry
    from pipelines.bench.measure import ServingMeasurement
    from pipelines.bench.report import growth, machine, ratios
    from pipelines.bench.world import WorldSpec, open_world

    disable_telemetry()
    clock = SystemClock()
    document: dict[str, Any] = {"machine": machine(clock), "options": asdict(options), "sizes": []}
    for size in sizes:
        spec = WorldSpec(size, interactions_per_person)
        with open_world(settings, root, spec, clock) as (world, endpoints):
            if world.reused:
                print_note(f"the world of {size:,} people in {world.settings.data_dir} is used again")
            measurement = ServingMeasurement(world, endpoints, options, clock)
            measurement.run()
        document["sizes"].append({**measurement.figures, "ratios": ratios(measurement.figures)})
    document["growth"] = growth(document["sizes"])
    return document


def _finish(document: dict[str, Any], json_file: Path | None) -> None:
    from pipelines.bench.errors import WrongAnswers
    from pipelines.bench.report import tables

    for drawn in tables(document):
        out().print(drawn)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(document, indent=2) + "\n")
        print_note(f"every figure: {json_file}")
    wrong = {problem: n for size in document["sizes"] for problem, n in size["wrong"].items()}
    if wrong:
        listed = ", ".join(f"{n} x {problem}" for problem, n in sorted(wrong.items()))
        raise WrongAnswers(f"The service gave answers that do not count: {listed}.")


def _numbers(text: str, option: str, low: int, high: int) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(low <= number <= high for number in found):
        raise typer.BadParameter(f"{option} takes whole numbers from {low} to {high} separated by commas, not {text!r}")
    return found


def _rate(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 100_000:
        raise typer.BadParameter(f"--rate takes `auto` or requests per second, not {text!r}")
    return found
