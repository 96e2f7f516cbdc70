"""Close runs that a crash left behind: `python -m pipelines.orphans`, once per start of the platform.

A run that was killed together with its code server stays "started" for hours. It is reported as failed here, after
which Dagster retries it by itself. A run whose worker is still alive is left alone: two copies would train.
Call it when the code server answers and before the daemon starts, else the daemon's only retry finds nobody.
"""

import re
import sys

import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
WORKER = re.compile(r"Started process for run \(pid: (\d+)\)")
# The worker writes its event after it was started; the clocks of both are the same machine's.
SLACK_S = 2.0


def close_orphans(instance: DagsterInstance) -> list[str]:
    """Report every unfinished run without a living worker as failed and return the run ids."""
    orphans = [run for run in instance.get_runs(RunsFilter(statuses=UNFINISHED)) if not has_worker(instance, run)]
    for run in orphans:
        instance.report_run_failed(run, "the platform stopped while this run was at work; it is tried again")
    return [run.run_id for run in orphans]


def has_worker(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Return whether the process that works on `run` is alive; a reused pid does not count."""
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        found = WORKER.search(entry.message)
        if found is not None and _is_alive_since(int(found.group(1)), entry.timestamp):
            return True
    return False


def _is_alive_since(pid: int, at: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= at + SLACK_S
    except psutil.Error:
        return False


def main() -> None:
    """Close the orphans of the instance that `DAGSTER_HOME` names."""
    with DagsterInstance.get() as instance:
        closed = close_orphans(instance)
    sys.stdout.write(f"closed {len(closed)} runs that a crash left behind {closed}\n")


if __name__ == "__main__":
    main()
