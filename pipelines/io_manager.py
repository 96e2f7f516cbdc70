"""The one IO manager: what a step makes goes to the store of results, and later steps get it from there as input.

A step receives the last good result of an upstream asset, whichever run and machine made it; its files are fetched when
the step opens them.
"""

from typing import Final

import dagster as dg

from pipelines.resources import Platform
from pipelines.results.store import ResultStore, StepResult

MAY_BE_MISSING: Final = {"may_be_missing": True}
"""Metadata of an input: the step goes on with None where the upstream asset was never made."""


class ResultIOManager(dg.IOManager):
    """Publish the result of each step, and load it as input of others."""

    def __init__(self, results: ResultStore) -> None:
        self._results = results

    def handle_output(self, context: dg.OutputContext, obj: StepResult) -> None:
        """Make `obj` the last good result of its asset: the last thing that a step does."""
        del context
        self._results.publish(obj)

    def load_input(self, context: dg.InputContext) -> StepResult | None:
        """Return the last good result of the upstream asset.

        Raises:
            MissingUpstream: it was never made, and the step cannot go on without.
        """
        asset = context.asset_key.to_user_string()
        if context.definition_metadata.get("may_be_missing"):
            return self._results.find(asset)
        return self._results.require(asset)


@dg.io_manager(
    required_resource_keys={"platform"},
    description="Results below `DUET_DATA_DIR`, shared by all machines at `DUET_RESULTS_URI` where it is set.",
)
def result_io_manager(context: dg.InitResourceContext) -> ResultIOManager:
    """Return the IO manager on the store of the run's platform."""
    platform: Platform = context.resources.platform
    return ResultIOManager(platform.results)
