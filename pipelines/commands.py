"""The commands that the pipelines add to `duet`: import, train, evaluate, bench.

Nothing heavy is imported here; each command loads what it needs when it runs.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.bench.commands import register_bench
from pipelines.experiments.commands import register_report
from pipelines.ingest.commands import register_import
from pipelines.upkeep.erasure.commands import register_erase

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from pipelines.evaluation.given import GivenReport
    from pipelines.resources import Platform
    from pipelines.runs.running import RunStory


_SHOWN_PROGRESS = 90
# A terminal has room for the measures that decide; Dagster and MLflow show all of them.
_SERVED, _COMPARED = "two_stage", "ndcg_at_20"
_DIFFERENCE = ("method", "difference", "difference_low", "difference_high")
_ONLY_IN_FULL = {
    "recall_at_20", "mrr_at_20", "novelty_at_10", "holistic_precision_at_10", "holistic_ndcg_at_10",
    "holistic_recall_at_10", "stable_recall_at_10", "stable_precision_at_10",
}  # fmt: skip


class TrainingJob(StrEnum):
    """What `duet train` can run."""

    TRAIN_ALL = "train_all"
    TRAIN_RANKER = "train_ranker"
    REBUILD_INDEX = "rebuild_index"
    MATERIALIZE_FEATURES = "materialize_features"
    MATERIALIZE_CHANGES = "materialize_changes"
    SEARCH_HYPERPARAMETERS = "search_hyperparameters"


class Protocol(StrEnum):
    """Who is ranked in an evaluation."""

    AUTO = "auto"
    CATALOGUE = "catalogue"
    MET = "met"


def register(app: typer.Typer) -> None:
    """Add this package's commands to the `duet` command."""
    register_import(app)
    register_bench(app)
    register_report(app)
    register_erase(app)
    app.command("train", epilog="Example: duet train --job train_ranker --set ranker.max_depth=6")(train)
    app.command("judge", epilog="Example: duet judge e3-i5-r2")(judge)
    app.command("evaluate", epilog="Example: duet evaluate --protocol met")(evaluate)


def train(
    ctx: typer.Context,
    job: Annotated[TrainingJob, typer.Option(help="What to run.")] = TrainingJob.TRAIN_ALL,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One hyperparameter, `step.field=value`; may be repeated.")
    ] = None,
    as_of: Annotated[
        str, typer.Option(help="ISO 8601 instant that bounds the run. Default: now, or the end of old data.")
    ] = "",
) -> None:
    """Learn from the imported people: features, embeddings, index, ranker, evaluation, release candidate.

    Runs here, in this process, and shows in the Dagster UI. The steps and their settings are those of the Launchpad.
    """
    from infra.cli.console import out, print_success
    from infra.cli.context import current_settings
    from pipelines.runs.opening import opened_platform
    from pipelines.runs.running import parse_settings

    settings = parse_settings(setting or [])
    if as_of:
        settings.setdefault("snapshots", {})["as_of"] = as_of
    with opened_platform(current_settings(ctx)) as platform:
        story = _run(platform, job.value, settings)
        if job in {TrainingJob.TRAIN_ALL, TrainingJob.TRAIN_RANKER}:
            _print_evaluation(platform)
            _print_advice(platform)
        took = f"{sum(story.steps.values()):.0f} s in {len(story.steps)} steps"
        candidate = platform.results.find("release_candidate")
        if job is TrainingJob.SEARCH_HYPERPARAMETERS:
            best = platform.results.require("hyperparameter_search", job.value).facts
            print_success(f"{best['trials']} trials, the best gave {best['value']:.5f} ({took}); train with it:")
            out().print(best["train_with"], soft_wrap=True)
        elif job in {TrainingJob.MATERIALIZE_FEATURES, TrainingJob.MATERIALIZE_CHANGES} or candidate is None:
            print_success(f"{job.value} done: {took}")
        else:
            _print_gates(platform, str(candidate.facts["release"]), took)


def judge(
    ctx: typer.Context,
    release: Annotated[
        str, typer.Argument(help="Release id such as `e3-i5-r2`; `latest` is the newest candidate.")
    ] = "latest",
) -> None:
    """Hold a release against the gates again, write the report on its versions and print it."""
    from infra.cli.context import current_settings
    from pipelines.runs.opening import opened_platform

    with opened_platform(current_settings(ctx)) as platform:
        story = _run(platform, "judge_release", {"judge": {"release": release}})
        named = platform.registry.release_candidate().release_id if release == "latest" else release
        _print_gates(platform, named, f"{sum(story.steps.values()):.0f} s")


def evaluate(  # noqa: PLR0917 - Typer reads options from the signature
    ctx: typer.Context,
    protocol: Annotated[
        Protocol, typer.Option(help="catalogue: everybody eligible; met: only those whose decision is known.")
    ] = Protocol.AUTO,
    train_file: Annotated[
        Path | None, typer.Option("--train", help="Training part of a published split, .csv or .parquet.")
    ] = None,
    test_file: Annotated[Path | None, typer.Option("--test", help="Its test part.")] = None,
    last_out_file: Annotated[
        Path | None,
        typer.Option("--leave-last-out", help="One file with times: everybody's last like is the test part."),
    ] = None,
    one_sided: Annotated[
        bool, typer.Option("--one-sided", help="Users and items, which are numbered apart, instead of people.")
    ] = False,
    threshold: Annotated[float, typer.Option(help="Ratings above it are likes.")] = 0.0,
    trials: Annotated[
        int, typer.Option(min=0, max=1_000, help="Settings of iALS tried on a given split; 0 takes the defaults.")
    ] = 14,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures of a given split as JSON.")] = False,
) -> None:
    """Compare the newest ranker with every simpler order on the held-out decisions, and print the table.

    With `--train` and `--test` a published split is taken instead, and with `--leave-last-out` a file is split: the
    simpler orders are fitted on the training part in memory, everybody is ranked, and neither the database nor any
    model is touched. The files have the columns `actor` and `target`, or `user` and `item`, and may have `kind` or
    `rating`; `--leave-last-out` needs `at`, `occurred_at` or `timestamp` too.
    """
    from infra.cli.context import current_settings
    from pipelines.runs.opening import opened_platform

    if last_out_file is not None and (train_file is not None or test_file is not None):
        raise typer.BadParameter("`--leave-last-out` splits one file: leave `--train` and `--test` out.")
    parts = _parts_of(train_file, test_file, last_out_file, threshold)
    if parts is not None:
        _print_given(_compared(*parts, one_sided=one_sided, threshold=threshold, trials=trials), as_json=as_json)
        return
    if train_file is not None or test_file is not None:
        raise typer.BadParameter("A published split has two parts: give both `--train` and `--test`.")
    if as_json:
        raise typer.BadParameter("`--json` prints a given split: add `--train` and `--test`.")
    with opened_platform(current_settings(ctx)) as platform:
        _run(platform, "evaluate", {"evaluation": {"protocol": protocol.value}})
        _print_evaluation(platform)


def _parts_of(
    train: Path | None, test: Path | None, last_out: Path | None, threshold: float
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    from pipelines.evaluation.splits import leave_last_out, read_interactions

    if last_out is not None:
        return leave_last_out(read_interactions(last_out), threshold)
    if train is not None and test is not None:
        return read_interactions(train), read_interactions(test)
    return None


def _compared(
    train: pd.DataFrame, test: pd.DataFrame, *, one_sided: bool, threshold: float, trials: int
) -> GivenReport:
    from infra.cli.console import print_note
    from pipelines.evaluation.given import compare_on
    from pipelines.evaluation.splits import given_split
    from pipelines.retrieval.config import TuningConfig

    split = given_split(train, test, one_sided=one_sided, threshold=threshold)
    if split.n_left_out:
        print_note(f"{split.n_left_out} test rows repeat a pair of training and are left out")
    return compare_on(split, TuningConfig(trials=trials), tell=print_note)


def _print_given(report: GivenReport, *, as_json: bool) -> None:
    import json

    from infra.cli.console import out, table
    from pipelines.evaluation.given import MEASURES

    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
        return
    rows = []
    for method in report.methods():
        cells = [report.interval(method, measure) for measure in MEASURES]
        rows.append([method, *(f"{cell.mean:.4f} [{cell.low:.4f}, {cell.high:.4f}]" for cell in cells)])
    title = f"Given split, {report.asked} asked, everybody ranked"
    out().print(table(title, ["method", "Recall@20", "NDCG@20", "MAP@20"], rows, right=range(1, 4)))


def _run(platform: Platform, job: str, settings: Mapping[str, Mapping[str, Any]]) -> RunStory:
    from infra.cli.console import err, progress
    from pipelines.runs.running import Listener, run_job

    with progress() as bars:
        task = bars.add_task("starting", total=None)

        def started(_run_id: str, steps: Any) -> None:
            bars.update(task, total=len(steps), description=job)

        running = job

        def step_started(step: str) -> None:
            nonlocal running
            running = step
            bars.update(task, description=step)

        def heard(sentence: str) -> None:
            bars.update(task, description=f"{running}: {sentence}"[:_SHOWN_PROGRESS])

        def step_ended(step: str, seconds: float, ok: bool) -> None:  # noqa: FBT001 - a callback's shape
            mark = "[green]✓[/]" if ok else "[red]✗[/]"
            bars.console.print(f"{mark} {step} [dim]{seconds:.1f} s[/]" if ok else f"{mark} {step}")
            bars.advance(task)

        platform.heard = heard
        story = run_job(platform, job, settings, os.getpid(), Listener(started, step_started, step_ended))
    err().print(f"[dim]log: {story.log}[/]")
    return story


def _print_gates(platform: Platform, release: str, took: str) -> None:
    """Print the report of a release and whether it can be promoted."""
    from infra.cli.console import out, print_note, print_success, table
    from pipelines.release.presentation import rows, shown_number
    from registry.contracts import ReleaseVersions
    from registry.promotion.gates import read_report

    report = read_report(platform.registry, ReleaseVersions.parse(release))
    if report is None:
        print_note(f"release candidate {release} was not judged ({took}); `duet judge {release}` does it")
        return
    shown = [
        [
            str(row["gate"]),
            str(row["verdict"]),
            shown_number(row["value"]),
            str(row["threshold"]),
            shown_number(row["production"]),
            str(row["tolerance"]),
        ]
        for row in rows(report)
    ]
    columns = ["gate", "verdict", "value", "threshold", "Production", "tolerance"]
    out().print(table(f"Gates of {release}", columns, shown, right=range(2, 6)))
    if report.passed:
        print_success(f"release candidate {release} is ready ({took}); `duet promote` puts it into Production")
        return
    for failure in report.failures():
        print_note(f"{failure.name}: {failure.why}")
    print_note(f"release candidate {release} cannot be promoted ({took}) without `--force --reason`")


def _print_advice(platform: Platform) -> None:
    """Name the setting that suits the data, where it is not set."""
    from infra.cli.console import print_note
    from pipelines.ingest.messages import Contacts

    if platform.settings.ranking.pending_likes:
        return
    advice = Contacts.of(platform.snapshot(platform.results.require("interactions")).events).advice()
    if advice is not None:
        print_note(advice)


def _print_evaluation(platform: Platform) -> None:
    import pandas as pd

    from infra.cli.console import out, table
    from pipelines.evaluation.assets import COLD_START_FILE, MATCHES_FILE, SLICES_FILE, TABLE_FILE

    judged = platform.results.require("evaluation", "evaluate")
    data = pd.read_csv(judged.path / TABLE_FILE)
    measures = [name for name in dict.fromkeys(data["measure"]) if name not in _ONLY_IN_FULL]
    means = data.pivot_table(index="method", columns="measure", values="mean", sort=False)
    rows = [
        [
            method,
            *("" if pd.isna(means.loc[method].get(name)) else f"{means.loc[method][name]:.4f}" for name in measures),
        ]
        for method in means.index
    ]
    columns = ["method", *(name.replace("_", " ") for name in measures)]
    title = f"Held-out window, protocol {judged.facts['protocol']}"
    out().print(table(title, columns, rows, right=range(1, 20)))
    apart = data[(data["measure"] == _COMPARED) & data["difference"].notna()]
    if len(apart):
        found = zip(*(apart[name] for name in _DIFFERENCE), strict=True)
        shown = [[method, f"{less:+.4f} [{low:+.4f}, {high:+.4f}]"] for method, less, low, high in found]
        out().print(table("Less the two stages, over the same people", ["method", "ndcg at 20"], shown, right=[1]))
    matches = pd.read_csv(judged.path / MATCHES_FILE)
    if len(matches):
        out().print(_table_of_matches(matches))
    slices = pd.read_csv(judged.path / SLICES_FILE)
    mine = slices[(slices["method"] == _SERVED) & (slices["measure"] == _COMPARED)]
    if len(mine):
        shown = [[group, f"{people}", interval] for group, people, interval in _means(mine, "group")]
        out().print(table("Two stages by slice", ["slice", "people", "ndcg at 20"], shown, right=range(1, 3)))
    curve = pd.read_csv(judged.path / COLD_START_FILE)
    if len(curve):
        points = {str(name): _means(rows, "swipes") for name, rows in curve.groupby("measure", sort=False)}
        shown = [
            [f"{cells[0][0]}", f"{cells[0][1]}", *(interval for _, _, interval in cells)]
            for cells in zip(*points.values(), strict=True)
        ]
        columns = ["swipes", "people", *(name.replace("_", " ") for name in points)]
        out().print(table("Newcomers, swipe by swipe", columns, shown, right=range(len(columns))))


def _table_of_matches(matches: Any) -> Any:
    """Return what is said of pairs that met: each measure with its interval, and beside the calibrated product."""
    from infra.cli.console import table

    measures = list(dict.fromkeys(matches["measure"]))
    cells: dict[str, list[str]] = {}
    for row in matches.to_dict("records"):
        apart = (
            ""
            if row["difference"] != row["difference"]
            else (f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]")
        )
        own = f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        cells.setdefault(row["method"], []).extend((own, apart))
    named = [column for measure in measures for column in (measure.replace("_", " "), "less calibrated")]
    title = f"Will the two match? {matches['pairs'].iloc[0]} pairs that decided on each other at one instant"
    return table(title, ["method", *named], [[name, *found] for name, found in cells.items()], right=range(1, 5))


def _means(rows: Any, of: str) -> list[tuple[Any, int, str]]:
    """Return what each row is of, how many people it is over, and its mean with the interval."""
    found = zip(rows[of], rows["people"], rows["mean"], rows["low"], rows["high"], strict=True)
    return [(what, int(people), f"{mean:.4f} [{low:.4f}, {high:.4f}]") for what, people, mean, low, high in found]
