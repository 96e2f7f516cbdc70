"""Settings of the measurement of drift; the index that asks for a retraining is `DUET_AUTOMATION__DRIFT_PSI`."""

from pydantic import BaseModel, ConfigDict, Field


class DriftConfig(BaseModel):
    """Say which decisions stand for the present."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: float = Field(default=7.0, gt=0, le=365, description="days before the newest snapshot that are compared")
    max_rows: int = Field(default=20_000, ge=100, le=1_000_000, description="decisions looked at; more are sampled")
    min_rows: int = Field(
        default=300, ge=10, le=100_000, description="fewer decisions are too few to tell drift from chance"
    )
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the sample")
