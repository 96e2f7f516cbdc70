"""Open the servers, and the platform on them, for the length of a command."""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.endpoints import open_endpoints
from infra.settings import Settings
from infra.telemetry import disable_telemetry
from pipelines.resources import Platform


@contextmanager
def opened_platform(settings: Settings) -> Iterator[Platform]:
    """Give a platform on the servers that the settings name, MLflow among them."""
    disable_telemetry()
    with open_endpoints(settings, mlflow=True) as endpoints:
        platform = Platform(settings, endpoints)
        try:
            yield platform
        finally:
            platform.close()
