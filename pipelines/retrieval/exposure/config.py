"""Settings of the prices of exposure, with their bounds and what each one does."""

from pydantic import BaseModel, ConfigDict, Field


class PricesConfig(BaseModel):
    """Say from how many lists prices are computed and how much exposure is nobody's privilege."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price_people: int = Field(
        default=1_000,
        ge=0,
        le=1_000_000,
        description="people whose lists the prices of exposure come from; 0 makes none",
    )
    price_places: int = Field(default=20, ge=1, le=1_000, description="places of a list that count as exposure")
    price_slack: float = Field(
        default=2.0, ge=1, le=1_000, description="capacity of a person, as a multiple of equal shares of exposure"
    )
    price_rounds: int = Field(default=150, ge=3, le=10_000, description="passes over the lists")
    price_seconds: float = Field(
        default=120.0, gt=0, le=86_400, description="no further list is made after so long; prices come from those made"
    )
    price_seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the sample of people")
