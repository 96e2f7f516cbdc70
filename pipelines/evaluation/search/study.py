"""A study of Optuna in memory, whose finished trials lie in a file, one line each, so that a killed search goes on.

The file is for one question only: the same rows, stage, seed and space. A line that a kill cut off is left out.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.evaluation.search.config import MAXIMISED, SPACES, Range, SearchConfig, Stage

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

COMPLETE, PRUNED = "complete", "pruned"
_WARM_UP_ROUNDS = 10
_WARM_UP_TRIALS = 5


@dataclass(frozen=True)
class TrialOutcome:
    """One finished trial; `value` is the last one reported where it was given up."""

    number: int
    parameters: dict[str, float]
    value: float
    state: str
    reported: dict[int, float] = field(default_factory=dict)


Objective = Callable[[Mapping[str, float], Callable[[int, float], None]], float]
"""Takes parameters and a function to report a value after a round with, which ends the trial by raising."""


def open_study(config: SearchConfig, earlier: list[TrialOutcome]) -> "Study":
    """Return a study that knows the earlier trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if config.stage in MAXIMISED else "minimize",
        # With a seed for each start: the same one again would propose what was tried already.
        sampler=optuna.samplers.TPESampler(seed=config.seed + len(earlier)),
        pruner=optuna.pruners.MedianPruner(_WARM_UP_TRIALS, _WARM_UP_ROUNDS)
        if config.prune
        else optuna.pruners.NopPruner(),
    )
    space = distributions(SPACES[config.stage])
    for outcome in earlier:
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED if outcome.state == PRUNED else optuna.trial.TrialState.COMPLETE,
                params=outcome.parameters,
                distributions=space,
                value=outcome.value,
                intermediate_values=outcome.reported,
            )
        )
    return study


def run_study(
    study: "Study", config: SearchConfig, objective: Objective, finished: Callable[[TrialOutcome], None]
) -> None:
    """Try until the study has its trials or the time is over; `finished` is told after each."""
    space = SPACES[config.stage]
    left = config.trials - len(study.trials)
    if left <= 0:
        return

    def ask(trial: "Trial") -> float:
        import optuna

        def report(step: int, value: float) -> None:
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        return objective({name: suggested(trial, name, limits) for name, limits in space.items()}, report)

    study.optimize(ask, n_trials=left, timeout=config.timeout_s, callbacks=[lambda _s, t: finished(outcome_of(t))])


def suggested(trial: "Trial", name: str, limits: Range) -> float:
    """Ask the sampler for a value of one parameter."""
    if limits.whole:
        return trial.suggest_int(name, int(limits.low), int(limits.high), log=limits.log)
    return trial.suggest_float(name, limits.low, limits.high, log=limits.log)


def distributions(space: Mapping[str, Range]) -> "dict[str, BaseDistribution]":
    """Return the space in Optuna's words."""
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(limits.low), int(limits.high), log=limits.log)
        if limits.whole
        else FloatDistribution(limits.low, limits.high, log=limits.log)
        for name, limits in space.items()
    }


def outcome_of(trial: "FrozenTrial") -> TrialOutcome:
    """Return what a finished trial came to."""
    reported = {int(step): float(value) for step, value in trial.intermediate_values.items()}
    return TrialOutcome(
        number=trial.number,
        parameters=dict(trial.params),
        value=float(
            trial.value if trial.value is not None else trial.intermediate_values[max(trial.intermediate_values)]
        ),
        state=PRUNED if trial.state.name == "PRUNED" else COMPLETE,
        reported=reported,
    )


def best_of(outcomes: list[TrialOutcome], stage: Stage) -> TrialOutcome | None:
    """Return the best complete trial, the earliest of equals; None where none is complete."""
    sign = -1.0 if stage in MAXIMISED else 1.0
    complete = [outcome for outcome in outcomes if outcome.state == COMPLETE]
    return min(complete, key=lambda outcome: (sign * outcome.value, outcome.number), default=None)


def importances(study: "Study") -> dict[str, float]:
    """Return the share of the values' variance that each parameter explains, largest first; {} of too few trials."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len({trial.value for trial in study.trials if trial.state.name == "COMPLETE"}) < 4:
        return {}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}


def read_outcomes(path: Path) -> list[TrialOutcome]:
    """Return the trials in the file, renumbered in order; [] where there is none."""
    if not path.is_file():
        return []
    found: list[TrialOutcome] = []
    for line in path.read_text().splitlines():
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # cut off by a kill
        reported = {int(step): value for step, value in told.pop("reported").items()}
        found.append(TrialOutcome(**{**told, "number": len(found)}, reported=reported))
    return found


def keep_outcome(path: Path, outcome: TrialOutcome) -> None:
    """Append a finished trial to the file; it is on disk when this returns."""
    with path.open("a") as file:
        # After a line that was cut off, the next one must not continue it.
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        file.write(json.dumps(outcome.__dict__, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
