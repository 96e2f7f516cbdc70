"""A run from the shell ends when it is terminated in Dagster's UI: it is never CANCELED while it works, nor SUCCESS."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import sleep

import dagster as dg
import implicit.als
import numpy as np
import pytest
import xgboost
from scipy import sparse

from infra.endpoints import Endpoints
from pipelines.errors import RunTerminated
from pipelines.resources import Platform
from pipelines.runs.running import Listener, execute, open_instance, run_job
from tests.conftest import make_settings

CANCELED, SUCCESS = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS
FOREVER = 10**9


@pytest.fixture(scope="module")
def instance(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    servers = replace(endpoints, mlflow_url="http://127.0.0.1:9")  # which nobody asks here
    platform = Platform(make_settings(tmp_path_factory.mktemp("terminated")), servers)
    with open_instance(platform) as instance:
        yield instance


def rest(_: Path) -> None:
    sleep(600)


def grow_trees(_: Path) -> None:
    data = xgboost.DMatrix(np.eye(4, dtype=np.float32), np.array([0.0, 1.0, 0.0, 1.0]))
    xgboost.train({"nthread": 1}, data, num_boost_round=FOREVER)


def learn_factors(_: Path) -> None:
    model = implicit.als.AlternatingLeastSquares(2, iterations=FOREVER, num_threads=1, use_gpu=False)
    model.fit(sparse.eye(8, format="csr", dtype=np.float32), show_progress=False)


def job_of(first: Callable[[], None], done: list[str]) -> dg.JobDefinition:
    @dg.op(out=dg.Out(dg.Nothing))
    def one() -> None:
        first()
        done.append("one")

    @dg.op(ins={"start": dg.In(dg.Nothing)})
    def two() -> None:
        done.append("two")

    @dg.job(executor_def=dg.in_process_executor)
    def terminated() -> None:
        two(start=one())

    return terminated


def run_of(instance: dg.DagsterInstance, job: dg.JobDefinition) -> tuple[dg.DagsterRun, list[str]]:
    """Return the run as it ended, and the statuses that it had when anything happened."""
    run = instance.create_run_for_job(job)
    seen: list[str] = []

    def tell(_: dg.DagsterEvent) -> None:
        found = instance.get_run_by_id(run.run_id)
        seen.append(found.status.value if found else "")

    execute(job, run, instance, tell)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    return ended, seen


def the_only_open(instance: dg.DagsterInstance) -> dg.DagsterRun:
    (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return run


@pytest.mark.timeout(400)
@pytest.mark.parametrize("work", [rest, grow_trees, learn_factors])
def test_a_run_that_is_terminated_in_the_middle_of_a_step_ends_there(
    instance: dg.DagsterInstance, tmp_path: Path, work: Callable[[Path], None]
) -> None:
    def first() -> None:
        instance.report_run_canceling(the_only_open(instance))  # what the button does, before it finds no code server
        work(tmp_path)

    done: list[str] = []
    ended, seen = run_of(instance, job_of(first, done))
    assert ended.status is CANCELED
    assert done == []
    assert "CANCELED" not in seen[:-1], "it was cancelled only when it had ended"


def test_a_run_that_was_marked_as_cancelled_at_once_ends_and_stays_cancelled(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    def first() -> None:
        instance.report_run_canceled(the_only_open(instance))
        rest(tmp_path)

    done: list[str] = []
    ended, seen = run_of(instance, job_of(first, done))
    assert ended.status is CANCELED
    assert done == []
    assert "SUCCESS" not in seen


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_that_is_terminated_as_a_step_ends_goes_no_further_and_is_no_success(
    instance: dg.DagsterInstance, steps: int
) -> None:
    def first() -> None:
        if steps == 2:
            instance.report_run_canceling(the_only_open(instance))

    def last() -> None:
        instance.report_run_canceling(the_only_open(instance))

    done: list[str] = []
    whole = job_of(first, done)

    @dg.job(executor_def=dg.in_process_executor)
    def short() -> None:
        dg.op(name="only")(lambda _: last())()

    ended, seen = run_of(instance, whole if steps == 2 else short)
    assert ended.status is CANCELED
    assert "two" not in done
    assert "SUCCESS" not in seen


def test_a_run_that_nobody_terminates_succeeds(instance: dg.DagsterInstance) -> None:
    done: list[str] = []
    ended, _ = run_of(instance, job_of(lambda: sleep(1.5), done))
    assert ended.status is SUCCESS
    assert done == ["one", "two"]


def test_whoever_started_the_run_reads_that_it_was_terminated(endpoints: Endpoints, tmp_path: Path) -> None:
    platform = Platform(make_settings(tmp_path), replace(endpoints, mlflow_url="http://127.0.0.1:9"))

    def step_started(_: str) -> None:
        with open_instance(platform) as instance:
            instance.report_run_canceling(the_only_open(instance))

    with pytest.raises(RunTerminated, match=r"the run [0-9a-f-]+ of `evaluate` was terminated in Dagster \(log: /"):
        run_job(platform, "evaluate", {}, 1, Listener(step_started=step_started))
    platform.close()
