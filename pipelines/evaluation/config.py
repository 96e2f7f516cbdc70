"""Settings of the time windows and of the evaluation, with their bounds and what each one does."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.ranking.config import Aggregator


class WindowConfig(BaseModel):
    """Say where the global clock splits the decisions into three windows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_share: float = Field(default=0.70, gt=0, lt=1, description="first share of decisions: the embeddings")
    ranking_share: float = Field(
        default=0.85, gt=0, lt=1, description="up to this share of decisions: the ranker; the rest is held out"
    )
    ranking_decisions: int = Field(
        default=3_000,
        ge=0,
        le=100_000_000,
        description="small sets move T0 earlier until the ranker has this many; the embeddings keep half",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.embedding_share >= self.ranking_share:
            message = f"embedding_share {self.embedding_share} must be below ranking_share {self.ranking_share}"
            raise ValueError(message)
        return self


class EvaluationConfig(BaseModel):
    """Say who is asked, with which candidates, and how the two stages are combined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["auto", "catalogue", "met"] = Field(
        default="auto",
        description="catalogue ranks all eligible undecided people, met only the people whose decision is known; "
        "auto takes met where people decide on most of those they could ever meet",
    )
    max_people: int = Field(default=1_000, ge=10, le=1_000_000, description="requesters of the catalogue protocol")
    cold_start_people: int = Field(
        default=100, ge=0, le=10_000, description="people asked as if new, swipe by swipe, for the cold-start curve"
    )
    n_candidates: int = Field(default=300, ge=10, le=10_000, description="candidates the first stage hands on")
    weight: float = Field(default=0.5, ge=0, le=1, description="weight of the forward score in the retrieval query")
    aggregator: Aggregator = Field(default="product", description="how the ranker's two directions are combined")
    bootstrap_rounds: int = Field(default=1_000, ge=50, le=100_000, description="resamples of people per interval")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of samples, random order and intervals")
