"""Close runs that a power loss left open: started, but with no worker alive to finish them.

Dagster's own monitor notices such a run only after its longest allowed time. Run this once at start, after the code
server answers and before the daemon does, so that the daemon's automatic retry finds the code. A run survives its code
server, so only one whose worker's process is gone is closed: two copies must never train at once.
"""

import re
from collections.abc import Callable, Sequence

import dagster as dg
import psutil
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

OPEN = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
REASON = "Its worker is gone: the machine or the platform stopped in the middle of the run."
PID_TAG = "duet/worker_pid"
_PID = re.compile(r"\(pid: (\d+)\)")


def close_orphans(instance: DagsterInstance, is_alive: Callable[[int], bool] | None = None) -> list[str]:
    """Report every open run without a living worker as failed; return their ids.

    Args:
        instance: where the runs are recorded.
        is_alive: tells whether a process is one of ours and alive; None asks the operating system.
    """
    alive = is_alive or worker_is_alive
    closed: list[str] = []
    for run in instance.get_runs(RunsFilter(statuses=OPEN)):
        pid = worker_pid(instance, run)
        if pid is not None and alive(pid):
            continue
        if pid is None and run.status is DagsterRunStatus.STARTING:
            continue  # it may be about to start; Dagster's monitor gives up on it after `start_timeout_seconds`
        instance.report_run_failed(run, REASON)
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        closed.append(run.run_id)
    return closed


def worker_pid(instance: DagsterInstance, run: DagsterRun) -> int | None:
    """Return the process id of a run's worker as the run itself recorded it, or None when it never got that far."""
    if PID_TAG in run.tags:
        return int(run.tags[PID_TAG])
    found: Sequence[dg.EventLogEntry] = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    for entry in reversed(found):
        event = entry.dagster_event
        if event is None:
            continue
        told = _PID.search(event.message or "")
        if told:
            return int(told.group(1))
        metadata = getattr(event.event_specific_data, "metadata", {}) or {}
        if "pid" in metadata:
            return int(str(metadata["pid"].value))
    return None


def worker_is_alive(pid: int) -> bool:
    """Tell whether the process lives and is a Python of a run; a recycled id of another program does not count."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        words = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return "dagster" in words or "duet" in words or "infra.cli" in words


def main() -> None:
    """Close the orphans of the instance that `DAGSTER_HOME` names and print how many there were."""
    with DagsterInstance.get() as instance:
        closed = close_orphans(instance)
    print(f"{len(closed)} orphaned runs closed{': ' + ', '.join(closed) if closed else ''}")  # noqa: T201


if __name__ == "__main__":
    main()
