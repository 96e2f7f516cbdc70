"""Settings of the ranker and of the rows it learns from, with their bounds and what each one does."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Aggregator = Literal["product", "harmonic", "min", "geometric", "requester"]


class DatasetConfig(BaseModel):
    """Say which decisions become training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: int = Field(
        default=60_000,
        ge=100,
        le=50_000_000,
        description="decisions of each window that become rows; more are sampled, whole visits at a time",
    )
    max_lists: int = Field(
        default=2_000, ge=10, le=1_000_000, description="people of each window whose candidates become rows"
    )
    negatives: int = Field(
        default=40, ge=1, le=5_000, description="candidates of a list that were not chosen, kept as rows"
    )
    pass_weight: float = Field(
        default=3.0, ge=0, le=100, description="weight of an explicit pass among candidates that were not chosen"
    )
    last_likes: int = Field(
        default=5,
        ge=1,
        le=20,
        description="latest likes of a person that a candidate is compared with; serving pays for each",
    )
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the sample")


class RankerConfig(BaseModel):
    """Say how the gradient-boosted trees are grown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(
        default=100,
        ge=1,
        le=20_000,
        description="the most trees, which every answer pays for; early stopping uses fewer",
    )
    early_stopping_rounds: int = Field(default=30, ge=1, le=1_000, description="rounds without progress that end it")
    learning_rate: float = Field(default=0.1, gt=0, le=1, description="step of one tree")
    max_depth: int = Field(default=3, ge=1, le=16, description="depth of one tree")
    min_child_weight: float = Field(default=20.0, ge=0, le=10_000, description="least weight of a leaf")
    subsample: float = Field(default=0.8, gt=0, le=1, description="share of rows a tree sees")
    column_sample: float = Field(default=0.8, gt=0, le=1, description="share of features a tree sees")
    l2: float = Field(default=10.0, ge=0, le=10_000, description="ridge on the leaves")
    monotone_scores: bool = Field(
        default=False, description="forbid that a higher retrieval score lowers the probability"
    )
    monotone_places: bool = Field(
        default=False,
        description="forbid that a better place by any source lowers the chance to be chosen; always so for choices",
    )
    validation_share: float = Field(
        default=0.2, gt=0, lt=0.9, description="the latest share of the rows, kept for early stopping and the report"
    )
    choice_depth: int = Field(default=3, ge=1, le=6, description="depth of a tree of the model of choices")
    choice_rounds: int = Field(default=150, ge=1, le=20_000, description="the most trees of the model of choices")
    judged_people: int = Field(
        default=600, ge=20, le=1_000_000, description="people on whose lists the orders are compared"
    )
    threads: int = Field(default=2, ge=1, le=64, description="threads of the training")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of row and feature sampling")
