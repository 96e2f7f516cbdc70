"""Settings of the offline feature tables: how often people are photographed, and how many times at most.

The bounds refuse settings whose tables would outgrow the interactions they summarise.
"""

from pydantic import BaseModel, ConfigDict, Field


class FeatureConfig(BaseModel):
    """Say how activity and reciprocity are snapshotted over time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_s: float = Field(
        default=86_400.0, gt=0, le=365 * 86_400, description="seconds between two snapshots of people's activity"
    )
    max_snapshots: int = Field(
        default=1_000, ge=1, le=10_000, description="the most snapshots of one run; the interval widens to keep to it"
    )
    write_chunk_rows: int = Field(default=50_000, ge=100, le=1_000_000, description="rows per COPY chunk")


class ChangesConfig(BaseModel):
    """Say how changes reach the online store between two full materialisations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    announce_s: float = Field(
        default=1_800.0,
        ge=0,
        le=86_400,
        description="seconds between two announcements; at each, serving reads the features of everybody anew, while "
        "whoever asks is always served with the newest",
    )
    chunk_people: int = Field(default=5_000, ge=1, le=1_000_000, description="people computed at a time")
