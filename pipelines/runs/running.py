"""Run a job in this process against the real Dagster instance, so that it shows in the UI like any other run.

It refuses a configuration before anything is started, closes runs whose worker died, tells each step as it ends, and
says in one sentence which step failed and why; the whole story goes to a log file.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import dagster as dg
import yaml
from dagster import DagsterEvent, DagsterInstance, DagsterInvalidConfigError

from infra.urls import sqlalchemy_url
from pipelines.dagster_private import NO_COMPUTE_LOGS, InMemoryJob, InstanceRef, execute_run_iterator
from pipelines.definitions import build_definitions
from pipelines.errors import InvalidSetting, RunFailed, RunTerminated
from pipelines.results.code_version import ROOT
from pipelines.runs.launchpad import config_of
from pipelines.runs.orphans import PID_TAG, close_orphans
from pipelines.runs.reasons import innermost_reason
from pipelines.runs.termination import Termination, until_terminated

if TYPE_CHECKING:
    from pipelines.resources import Platform

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
NOISY_LIBRARIES = ("mlflow.store", "mlflow.tracking", "alembic", "great_expectations", "feast", "implicit", "urllib3")
_REFUSED = re.compile(r"PostProcessingError: (?P<told>.+?)\s*(?:\n\s*Stack Trace|$)", re.DOTALL)


@dataclass
class Listener:
    """Who is told about the progress of a run."""

    started: Callable[[str, Sequence[str]], None] = lambda _run_id, _steps: None
    step_started: Callable[[str], None] = lambda _step: None
    step_ended: Callable[[str, float, bool], None] = lambda _step, _seconds, _ok: None


@dataclass
class RunStory:
    """What became of a run."""

    run_id: str
    log: Path
    steps: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    failed_checks: list[str] = field(default_factory=list)


def run_job(
    platform: "Platform", job_name: str, settings: Mapping[str, Mapping[str, Any]], pid: int, listener: Listener
) -> RunStory:
    """Run a job to its end.

    Args:
        platform: with open servers.
        job_name: a job of `pipelines.definitions`.
        settings: configuration by step, then by field.
        pid: this process, recorded so that a later start knows whether the run still has a worker.
        listener: told about progress.

    Raises:
        InvalidSetting: the configuration is refused; nothing was started.
        RunFailed: a step failed.
        RunTerminated: somebody terminated the run in Dagster.
    """
    job = build_definitions(platform).resolve_job_def(job_name)
    config = checked_config(job, settings)
    with open_instance(platform) as instance:
        close_orphans(instance)
        try:
            run = instance.create_run_for_job(job, run_config=config, tags={PID_TAG: str(pid), "duet/source": "cli"})
        except DagsterInvalidConfigError as refused:
            raise InvalidSetting(refusal(refused)) from None
        log = Path(platform.settings.data_dir).absolute() / "logs" / "runs" / f"{run.run_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        story = RunStory(run.run_id, log)
        listener.started(run.run_id, [node.name for node in job.nodes_in_topological_order])
        with log.open("w") as file, _quiet_libraries():
            execute(job, run, instance, lambda event: _tell(event, story, listener, file))
        ended = instance.get_run_by_id(run.run_id)
        if ended is not None and ended.status is dg.DagsterRunStatus.CANCELED:
            raise RunTerminated(f"the run {run.run_id} of `{job_name}` was terminated in Dagster (log: {log})")
        if ended is None or not ended.is_success:
            raise RunFailed(_failure(story, job_name))
    return story


def execute(
    job: dg.JobDefinition, run: dg.DagsterRun, instance: DagsterInstance, tell: Callable[[DagsterEvent], None]
) -> None:
    """Work on a run in this process until it ends or is terminated, and tell its events."""
    events = execute_run_iterator(InMemoryJob(job), run, instance)
    until_terminated(events, Termination(instance, run.run_id), tell)


def checked_config(job: dg.JobDefinition, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the run configuration of `settings` by step and field over the job's defaults, as the Launchpad gives it.

    Raises:
        InvalidSetting: a step or a setting is unknown.
    """
    check_steps(job, settings)
    return _merged({step: dict(values) for step, values in settings.items() if values}, job)


def check_steps(job: dg.JobDefinition, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse settings of steps that the job does not have, and settings that a step does not have.

    Raises:
        InvalidSetting: a step or a setting is unknown.
    """
    known = {node.name: node.definition for node in job.nodes_in_topological_order}
    for step in settings:
        if step not in known:
            raise InvalidSetting(f"the job `{job.name}` has no step `{step}`; its steps are {', '.join(known)}")
    for step, values in settings.items():
        op = known[step]
        model = config_of(op) if isinstance(op, dg.OpDefinition) else None
        fields = [] if model is None else [*model.model_fields]
        told = ", ".join(fields) or "none"
        for name in values:
            if name not in fields:
                raise InvalidSetting(f"the step `{step}` has no setting `{name}`; its settings are {told}")


@contextlib.contextmanager
def open_instance(platform: "Platform") -> Iterator[DagsterInstance]:
    """Open the Dagster instance of this platform: the project's `dagster.yaml` on this platform's servers."""
    home = Path(platform.settings.data_dir).absolute() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    storage = {"url": sqlalchemy_url(platform.database_url, "dagster")}
    overrides = {
        "storage": {"custom": {"module": "pipelines.runs.storage", "class": "DuetStorage", "config": storage}},
        "local_artifact_storage": {
            "module": "pipelines.runs.storage",
            "class": "DuetArtifacts",
            "config": {"data_dir": str(home.parent)},
        },
        # Steps print to this terminal, so nothing is captured; the log file has the story.
        "compute_logs": NO_COMPUTE_LOGS,
    }
    reference = InstanceRef.from_dir(str(home), config_dir=str(ROOT), overrides=overrides)
    with DagsterInstance.from_ref(reference) as instance:
        yield instance


def refusal(refused: DagsterInvalidConfigError) -> str:
    """Say in one sentence why a configuration was refused."""
    parts = []
    for error in refused.errors:
        told = _REFUSED.search(error.message)
        parts.append(told["told"].strip() if told else error.message)
    return " ".join("; ".join(parts).split())


def parse_settings(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `step.field=value` words; a value is read as YAML, so `6` is a number and `met` a text.

    Raises:
        InvalidSetting: a word is malformed.
    """
    settings: dict[str, dict[str, Any]] = {}
    for word in given:
        name, sign, value = word.partition("=")
        step, dot, key = name.strip().partition(".")
        if not (sign and dot and step and key):
            raise InvalidSetting(f"`--set {word}` is not understood; write it like `--set ranker.max_depth=6`")
        try:
            settings.setdefault(step, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InvalidSetting(f"the value of `--set {word}` cannot be read; quote it as YAML") from None
    return settings


def _merged(settings: Mapping[str, Mapping[str, Any]], job: dg.JobDefinition) -> dict[str, Any]:
    """Put the job's own defaults below what was asked for, as the Launchpad does."""
    own = job.run_config or {}
    ops = {name: dict(values) for name, values in own.get("ops", {}).items()}
    for name, values in settings.items():
        ops[name] = {"config": {**ops.get(name, {}).get("config", {}), **values}}
    return {"ops": ops, "loggers": QUIET}


def _tell(event: DagsterEvent, story: RunStory, listener: Listener, file: IO[str]) -> None:
    step = event.step_key or ""
    file.write(f"{event.event_type_value} {step} {event.message or ''}\n")
    if event.is_step_start:
        listener.step_started(step)
    elif event.is_step_success:
        story.steps[step] = event.step_success_data.duration_ms / 1000
        listener.step_ended(step, story.steps[step], True)
    elif event.is_step_failure:
        error = event.step_failure_data.error
        story.failures[step] = innermost_reason(error)
        file.write(f"{error.to_string() if error else 'no reason was recorded'}\n")
        listener.step_ended(step, 0.0, False)
    elif event.event_type_value == "ASSET_CHECK_EVALUATION":
        found = event.asset_check_evaluation_data
        if not found.passed and found.blocking:
            story.failed_checks.append(f"{found.check_name}: {found.description}")
    file.flush()


def _failure(story: RunStory, job_name: str) -> str:
    step, reason = next(iter(story.failures.items()), (job_name, "the run was ended from outside"))
    if story.failed_checks:
        reason = "; ".join(story.failed_checks)
    return f"the step `{step}` of `{job_name}` failed: {reason} (log: {story.log})"


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in NOISY_LIBRARIES}
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
