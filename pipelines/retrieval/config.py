"""Settings of the embeddings and of the candidate index, with their bounds and what each one does."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EmbeddingConfig(BaseModel):
    """Say how likes and passes become two factors per person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int = Field(default=64, ge=2, le=512, description="width of a factor; lowered by itself on tiny sets")
    iterations: int = Field(default=15, ge=1, le=100, description="rounds of alternating least squares")
    content_rounds: int = Field(
        default=12,
        ge=0,
        le=100,
        description="further rounds in which every factor is pulled to what the profile predicts; 0 pulls to zero",
    )
    alpha: float = Field(default=100.0, ge=1, le=1_000, description="confidence of a like; an unseen pair has 1")
    pass_confidence: float = Field(
        default=100.0, ge=1, le=1_000, description="confidence of a pass as a true negative; 1 treats it as unseen"
    )
    regularization: float = Field(
        default=500.0, ge=0.001, le=100_000, description="pull of every factor to its prior; five times alpha is good"
    )
    min_interactions: int = Field(
        default=1, ge=1, le=1_000, description="a person with fewer decisions in a role gets that role from the profile"
    )
    content_regularization: float = Field(
        default=100.0, ge=0.001, le=1e6, description="ridge of the content-to-factor regression"
    )
    threads: int = Field(default=2, ge=1, le=64, description="threads of the fit; the result does not depend on it")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the first factors")


class IndexBuildConfig(BaseModel):
    """Say which index is built and to which recall it is tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "flat", "ivf_flat", "ivf_fp16", "ivf_sq8", "ivf_pq"] = Field(
        default="auto", description="auto chooses by the number of people"
    )
    nlist: int | None = Field(default=None, ge=1, le=1_000_000, description="inverted lists; none chooses by size")
    target_recall: float = Field(
        default=0.95, ge=0.5, le=1.0, description="share of the exact answer that the tuned search must find"
    )
    sample_queries: int = Field(default=500, ge=10, le=10_000, description="people whose queries tune the search")
    weight: float = Field(
        default=0.5, ge=0, le=1, description="weight of 'I would like them' against 'they would like me' in a query"
    )
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the sample and of the clustering")
