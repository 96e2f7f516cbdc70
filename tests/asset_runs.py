"""One asset alone, run as Dagster runs it: the way to test what an asset does."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pipelines.io_manager import result_io_manager
from pipelines.resources import Platform
from pipelines.runs.launchpad import checked_assets


def run_asset(
    asset: dg.AssetsDefinition,
    platform: Platform,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str] | None = None,
    **config: Any,
) -> dg.ExecuteInProcessResult:
    """Materialise `asset` with the results of the platform as its inputs, configured by `config`."""
    return dg.materialize(
        [*(dg.AssetSpec(key) for key in asset.dependency_keys), *checked_assets([asset])],
        resources={"platform": platform, "io_manager": result_io_manager},
        run_config={"ops": {asset.op.name: {"config": config}}} if config else {},
        instance=instance,
        raise_on_error=False,
        tags=dict(tags or {}),
    )
