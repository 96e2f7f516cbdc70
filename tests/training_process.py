"""Steps of a training in a process of its own, which may be told to die at a failpoint.

The children are forked from a process that has imported everything and done nothing: a kill costs a second, not ten.
"""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import infra.faults
from infra.endpoints import Endpoints
from infra.settings import Settings
from tests.clocks import FixedClock

_CHILD_S = 200.0
_SHOWN_CHARACTERS = 6_000
_children = multiprocessing.get_context("forkserver")
_children.set_forkserver_preload(
    ["faiss", "feature_repo.store", "feature_repo.transforms.loops", "great_expectations", "implicit",
     "matplotlib.backends.backend_agg", "matplotlib.pyplot", "mlflow.server", "pipelines.definitions",
     "pipelines.ranking.train", "pipelines.retrieval.factorise", "registry.mlflow.rest", "registry.mlflow.logged",
     "sqlalchemy.dialects.sqlite", "xgboost"]
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """Where a training works: its data directory, its servers and its unmoving clock."""

    settings: Settings
    endpoints: Endpoints
    at: datetime

    def run(
        self,
        assets: Sequence[str],
        config: Mapping[str, Mapping[str, Any]],
        *,
        run_id: str,
        failpoint: str | None = None,
    ) -> int:
        """Materialise `assets`, none meaning all, and return the exit code of the process: -9 if it was killed.

        What a failed process wrote is printed, so that pytest shows the reason beside the test.
        """
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        log = self.settings.data_dir / f"training-{run_id}.log"
        child = _children.Process(target=_materialize, args=(self, tuple(assets), dict(config), run_id, failpoint, log))
        child.start()
        child.join(_CHILD_S)
        assert child.exitcode is not None, f"{assets} took longer than {_CHILD_S} s"
        if child.exitcode > 0:
            sys.stdout.write(log.read_text(errors="replace")[-_SHOWN_CHARACTERS:])
        return child.exitcode


def _materialize(
    training: Training,
    assets: tuple[str, ...],
    config: dict[str, Mapping[str, Any]],
    run_id: str,
    failpoint: str | None,
    log: Path,
) -> None:
    # The fork server was started once: its own output belongs to whichever test came first.
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import dagster as dg

    from pipelines.definitions import build_definitions
    from pipelines.resources import Platform

    if failpoint is not None:
        os.environ[infra.faults.VARIABLE] = failpoint
        importlib.reload(infra.faults)  # the fork server was started without it
    platform = Platform(training.settings, training.endpoints, FixedClock(training.at))
    job = build_definitions(platform).resolve_job_def("train_all")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(
            run_config={"ops": {step: {"config": values} for step, values in config.items()}},
            instance=instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
            run_id=run_id,
        )
    platform.close()
