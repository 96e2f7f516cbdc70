"""Thresholds of the validation: how quiet, how much smaller and how different data may be before a run is stopped."""

from pydantic import BaseModel, ConfigDict, Field


class ValidationConfig(BaseModel):
    """Say when snapshots are too old, too small or too different to learn from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_silence_days: float = Field(
        default=30.0, gt=0, le=36_500, description="longest silence between the newest interaction and `as_of`"
    )
    max_volume_drop: float = Field(
        default=0.5, ge=0, le=1, description="share of rows that may be missing since the last accepted snapshot"
    )
    max_like_rate_drift: float = Field(
        default=0.15, gt=0, le=1, description="largest change of the share of likes since the last accepted snapshot"
    )
    max_age_years: float = Field(default=120.0, gt=0, le=200, description="oldest believable person")
    validated_rows: int = Field(
        default=2_000_000, ge=1_000, le=100_000_000,
        description="rows checked one by one; of larger tables a seeded uniform sample (totals use every row)",
    )  # fmt: skip
