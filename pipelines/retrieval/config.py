"""Settings of the embeddings and of the candidate index, with their bounds and what each one does."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EmbeddingConfig(BaseModel):
    """Say how likes and passes become two factors per person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: int = Field(default=64, ge=2, le=512, description="width of a factor; lowered by itself on tiny sets")
    iterations: int = Field(default=15, ge=1, le=100, description="rounds of alternating least squares")
    content_rounds: int = Field(
        default=3,
        ge=0,
        le=100,
        description="further rounds in which every factor is pulled to what the profile predicts; 0 pulls to zero",
    )
    alpha: float = Field(default=20.0, ge=1, le=1_000, description="confidence of a like; an unseen pair has 1")
    pass_confidence: float = Field(
        default=1.0, ge=1, le=1_000, description="confidence of a pass as a true negative; 1 treats it as unseen"
    )
    regularization: float = Field(default=100.0, ge=0.001, le=100_000, description="pull of every factor to its prior")
    min_interactions: int = Field(
        default=1, ge=1, le=1_000, description="a person with fewer decisions in a role gets that role from the profile"
    )
    content_regularization: float = Field(
        default=100.0, ge=0.001, le=1e6, description="ridge of the content-to-factor regression"
    )
    threads: int = Field(default=2, ge=1, le=64, description="threads of the fit; the result does not depend on it")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the first factors")


class TuningConfig(BaseModel):
    """Say how long the settings of the embeddings are searched for on the data at hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=15, ge=0, le=1_000, description="settings tried; 0 takes those given as they are")
    seconds: float = Field(default=240.0, gt=0, le=86_400, description="no further setting is tried after so long")
    share: float = Field(default=0.15, gt=0, lt=0.9, description="last share of the likes, on which lists are judged")
    max_people: int = Field(default=1_000, ge=10, le=1_000_000, description="people whose lists are judged")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the sample")


class NeighboursConfig(BaseModel):
    """Say how likes in common become neighbour scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: int = Field(default=100, ge=1, le=1_000, description="item k-NN: neighbours kept of each person")
    bm25_k1: float = Field(default=1.2, ge=0, le=100, description="item k-NN: how soon more likes stop counting")
    bm25_b: float = Field(default=0.75, ge=0, le=1, description="item k-NN: how much many likes made weigh less")
    spectral_neighbours: int = Field(default=200, ge=1, le=1_000, description="two steps: entries kept of each person")
    spectral_dimensions: int = Field(default=128, ge=1, le=1_024, description="width of the smooth part")
    spectral_passes: int = Field(default=4, ge=0, le=20, description="power iterations of the decomposition")
    smooth_weight: float = Field(default=0.3, ge=0, le=100, description="weight of the smooth part beside two steps")
    ease_people: int = Field(default=10_000, ge=0, le=50_000, description="EASE up to so many liked people; 0 never")
    ease_neighbours: int = Field(default=1_000, ge=1, le=50_000, description="EASE: weights kept of each person")
    ease_ridge: float = Field(default=300.0, gt=0, le=1e6, description="EASE: ridge of the regression")
    odds_dimensions: int = Field(
        default=6, ge=0, le=64, description="odds of a like: most dimensions of a taste; 0 fits none"
    )
    odds_rounds: int = Field(default=20, ge=1, le=500, description="odds of a like: rounds of the fit")
    odds_content_ridge: float = Field(
        default=100.0, gt=0, le=1e6, description="odds of a like: ridge of the regression on profiles"
    )
    popularity_half_life_days: float = Field(
        default=30.0, gt=0, le=36_500, description="after so many days a like received counts half"
    )
    threads: int = Field(default=2, ge=1, le=64, description="threads of the fit; the result does not depend on it")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the decomposition")


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
