"""Settings of a snapshot: the instant of the run, how decisions are split in time, and when data are refused."""

from typing import Self

from pydantic import Field, model_validator

from pipelines.errors import ImpossibleInstant
from pipelines.evaluation.config import WindowConfig
from pipelines.ingest.snapshots import parse_instant
from pipelines.ingest.validation.config import ValidationConfig


class SnapshotConfig(WindowConfig, ValidationConfig):
    """Say as of when people and interactions are photographed and what must hold for them."""

    as_of: str = Field(
        default="",
        max_length=40,
        description="ISO 8601 instant that bounds the run; empty takes now, or the end of the data if they are old",
    )
    since: str = Field(
        default="",
        max_length=40,
        description="ISO 8601 instant from which on decisions are learned from; empty takes all. Features still count "
        "everything that people ever did",
    )
    live_within_days: float = Field(
        default=30.0, gt=0, le=36_500, description="data whose newest interaction is older than this are historical"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        try:
            bounds = {name: parse_instant(text, name) for name in ("since", "as_of") if (text := getattr(self, name))}
        except ImpossibleInstant as refused:
            raise ValueError(str(refused)) from None
        if len(bounds) == 2 and bounds["since"] >= bounds["as_of"]:
            message = f"since {self.since} must be before as_of {self.as_of}"
            raise ValueError(message)
        return self
