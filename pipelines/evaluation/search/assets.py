"""The search as an asset: its best parameters, how it got there, and the line that trains with them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipelines.evaluation.search.config import MEASURES, SPACES, SearchConfig, Stage
from pipelines.presentation import link, path, plots, table
from pipelines.ranking.assets import snapshot_of
from pipelines.resources import Platform
from pipelines.results.store import StepResult, combined_digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipelines.evaluation.search.study import Objective, TrialOutcome

TRIALS_FILE = "trials.jsonl"
SHOWN_TRIALS = 50


class SearchStep(SearchConfig, dg.Config):
    """Say what is searched, and for how long."""


@dg.asset(
    group_name="search",
    kinds={"optuna", "mlflow"},
    pool="training",
    op_tags={"duet/heavy": "yes"},
    description="The best hyperparameters of the ranker or of the embeddings on the decisions before T1.",
)
def hyperparameter_search(
    context: dg.AssetExecutionContext,
    config: SearchStep,
    platform: dg.ResourceParam[Platform],
    interactions: StepResult,
    ranking_dataset: StepResult,
) -> dg.MaterializeResult[Any]:
    """Try hyperparameters, log each trial as a child run, and keep what was tried."""
    from pipelines.evaluation.search.study import importances, keep_outcome, open_study, read_outcomes, run_study

    dataset = ranking_dataset
    directory, digest = trials_of(platform, question(dataset, config))
    if not config.resume:
        (directory / TRIALS_FILE).unlink(missing_ok=True)
    outcomes = read_outcomes(directory / TRIALS_FILE)
    context.log.info("%d trials on these data were done before", len(outcomes))
    study = open_study(config, outcomes)
    run_id, run_url = context.run.run_id, platform.run_url(context.run.run_id)
    tags = {"dataset_digest": dataset.digest, "stage": config.stage}
    name = f"search-{config.stage}"
    with platform.models.open_run(
        name, params=config.model_dump(mode="json"), tags=tags, dagster_run_id=run_id, dagster_url=run_url
    ) as parent:

        def finished(outcome: "TrialOutcome") -> None:
            keep_outcome(directory / TRIALS_FILE, outcome)
            outcomes.append(outcome)
            platform.models.log_evaluation(
                name=f"{name}-{outcome.number}",
                metrics={MEASURES[config.stage]: outcome.value},
                params=outcome.parameters,
                tags={"state": outcome.state},
                parent=parent,
            )
            best = best_value(outcomes, config.stage)
            context.log.info(
                "trial %d of %d: %.5f (%s), best so far %s",
                outcome.number + 1, config.trials, outcome.value, outcome.state, best,
            )  # fmt: skip

        run_study(study, config, objective_of(platform, dataset, interactions, config), finished)
        importance = importances(study)
        figures = figures_of(outcomes, importance, config.stage)
        best = require_best(outcomes, config)
        line = train_with(config.stage, best.parameters)
        platform.models.log_to(
            parent,
            metrics={MEASURES[config.stage]: best.value, "trials": float(len(outcomes))},
            params={f"best_{key}": value for key, value in best.parameters.items()},
            figures=figures,
            tables={"train_with.txt": line},
        )
    made = StepResult(
        asset="hyperparameter_search", digest=digest, run_id=run_id, as_of=dataset.as_of,
        t0=dataset.t0, t1=dataset.t1, inputs={**dataset.inputs, "ranking_dataset": dataset.digest},
        facts={"stage": config.stage, "trials": len(outcomes), "value": best.value, "train_with": line},
    )  # fmt: skip
    ranked = sorted(outcomes, key=lambda outcome: (outcome.state, outcome.number == best.number, outcome.number))
    return dg.MaterializeResult(
        value=made,
        metadata={
            "stage": config.stage,
            "trials": len(outcomes),
            MEASURES[config.stage]: best.value,
            "best": table([{"parameter": key, "value": value} for key, value in best.parameters.items()]),
            "train_with": dg.MetadataValue.md(f"```\n{line}\n```"),
            "importance": table([{"parameter": key, "share": value} for key, value in importance.items()]),
            "shown_trials": table(
                [{"trial": o.number, "value": o.value, "state": o.state, **o.parameters} for o in ranked[:SHOWN_TRIALS]]
            ),
            "mlflow": link(platform.models.run_url(parent)),
            "path": path(directory),
            **plots(figures),
        },
    )


def trials_of(platform: Platform, digest: str) -> "tuple[Path, str]":
    """Return the folder of the trials of a question, with those of an earlier search in it, and its digest."""
    if platform.results.has("hyperparameter_search", digest):
        return platform.results.path("hyperparameter_search", digest), digest
    directory = platform.results.directory("hyperparameter_search", digest)
    directory.mkdir(parents=True)
    return directory, digest


def question(dataset: StepResult, config: SearchConfig) -> str:
    """Return the digest of what is asked: trials of one question tell nothing about another."""
    return combined_digest(
        {
            "dataset": dataset.digest,
            "inputs": dataset.inputs,
            "stage": config.stage,
            "seed": config.seed,
            "space": {name: asdict(limits) for name, limits in SPACES[config.stage].items()},
        }
    )


def objective_of(
    platform: Platform, dataset: StepResult, interactions: StepResult, config: SearchConfig
) -> "Objective":
    """Load what the stage is judged on."""
    from pipelines.evaluation.search.objectives import embedding_objective, ranker_objective
    from pipelines.ranking.files import load_rows
    from pipelines.results.inputs import before_window, microseconds_of

    if config.stage == "ranker":
        return ranker_objective(load_rows(dataset.path), config)
    from registry.models.artifacts import read_manifest

    snapshot = platform.snapshot(snapshot_of(dataset, interactions))
    fitted = read_manifest(platform.results.path("embeddings", dataset.inputs["embeddings"]))
    t0_us = microseconds_of(dataset.t0 or dataset.as_of)
    return embedding_objective(snapshot, before_window(fitted.lineage), t0_us, config)


def figures_of(outcomes: "list[TrialOutcome]", importance: "Mapping[str, float]", stage: Stage) -> dict[str, bytes]:
    """Draw the search, and what matters in it where enough was tried to say."""
    from pipelines.evaluation.search.plots import parameter_importance, search_history

    figures = {"search_history": search_history(outcomes, stage)}
    return figures | ({"parameter_importance": parameter_importance(importance)} if importance else {})


def best_value(outcomes: "list[TrialOutcome]", stage: Stage) -> str:
    """Return the best value so far for a line of the log."""
    from pipelines.evaluation.search.study import best_of

    best = best_of(outcomes, stage)
    return "unknown" if best is None else f"{best.value:.5f} (trial {best.number + 1})"


def require_best(outcomes: "list[TrialOutcome]", config: SearchConfig) -> "TrialOutcome":
    """Return the best trial.

    Raises:
        NoTrial: none was finished in time.
    """
    from pipelines.evaluation.search.errors import NoTrial
    from pipelines.evaluation.search.study import best_of

    best = best_of(outcomes, config.stage)
    if best is None:
        raise NoTrial(f"no trial was finished within {config.timeout_s:g} s; raise `timeout_s` or `trials`")
    return best


def train_with(stage: Stage, parameters: "Mapping[str, float]") -> str:
    """Return the command that trains with these parameters."""
    settings = " ".join(f"--set {stage}.{name}={value:.6g}" for name, value in parameters.items())
    job = "train_ranker" if stage == "ranker" else "train_all"
    return f"duet train --job {job} {settings}"
