"""Whether a consumer of streams is at work, for the health check of a container."""

from datetime import datetime

from infra.settings import Settings
from infra.sign_of_life import silent_streams
from serving.errors import NotConsuming


def require_life(settings: Settings, now: datetime) -> None:
    """Return where a consumer of this data folder is at work on both streams; raises NotConsuming."""
    for name in silent_streams(settings.data_dir, now.timestamp()):
        raise NotConsuming(f"No consumer is at work on the stream of {name}: start one with `duet stream`.")
