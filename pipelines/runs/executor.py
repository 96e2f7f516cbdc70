"""Where the steps of a run work: in one process by default, or each in a process of its own.

A process of its own costs a step seconds of imports, so that is asked for: in the Launchpad, or in the configuration of
a run, as `execution: {config: {multiprocess: {max_concurrent: 2}}}`. Results pass through the IO manager either way.
"""

from typing import Any

import dagster as dg

_ANYTHING = dg.Permissive()  # type: ignore[no-untyped-call]  # Dagster's is untyped; its executor checks the rest
_CHOICE = dg.Field(
    dg.Selector(  # type: ignore[no-untyped-call]  # Dagster's is untyped
        {
            "in_process": dg.Field(_ANYTHING, is_required=False, description="all steps in one process"),
            "multiprocess": dg.Field(_ANYTHING, is_required=False, description="each step in its own process"),
        }
    ),
    default_value={"in_process": {}},
)


@dg.configured(dg.multi_or_in_process_executor, config_schema=_CHOICE)
def in_process_or_multiprocess(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of Dagster's own executor."""
    return config
