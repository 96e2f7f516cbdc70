"""Switches off the usage reporting of every library we run: Duet sends nothing home.

Entry points call `disable_telemetry` before they import a library; child processes get `TELEMETRY_OFF` in their
environment.
"""

import os

TELEMETRY_OFF: dict[str, str] = {
    "ANONYMIZED_TELEMETRY": "false",
    "BENTOML_DO_NOT_TRACK": "true",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "FEAST_TELEMETRY": "false",
    "FEAST_USAGE": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def disable_telemetry() -> None:
    """Set every opt-out variable in this process, so that its children inherit them."""
    os.environ.update(TELEMETRY_OFF)
