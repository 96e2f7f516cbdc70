"""Settings of a snapshot: the instant of the run, how decisions are split in time, and when data are refused."""

from pydantic import Field

from pipelines.evaluation.config import WindowConfig
from pipelines.validation.config import ValidationConfig


class SnapshotConfig(WindowConfig, ValidationConfig):
    """Say as of when people and interactions are photographed and what must hold for them."""

    as_of: str = Field(
        default="",
        max_length=40,
        description="ISO 8601 instant that bounds the run; empty takes now, or the end of the data if they are old",
    )
    live_within_days: float = Field(
        default=30.0, gt=0, le=36_500, description="data whose newest interaction is older than this are historical"
    )
