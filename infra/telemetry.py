"""Switches off the usage reporting of every library we run: Duet sends nothing home.

Entry points call `disable_telemetry` before they import a library; child processes get `TELEMETRY_OFF` in their
environment.
"""

import os

TELEMETRY_OFF: dict[str, str] = {
    "BENTOML_DO_NOT_TRACK": "true",
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def disable_telemetry() -> None:
    """Set every opt-out variable in this process, so that its children inherit them."""
    os.environ.update(TELEMETRY_OFF)
