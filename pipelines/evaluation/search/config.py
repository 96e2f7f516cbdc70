"""Settings of a search, and the space of each stage: every bound lies within what the stage itself accepts."""

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal["ranker", "embeddings"]


class SearchConfig(BaseModel):
    """Say what is searched, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Stage = Field(
        default="ranker",
        description="ranker: least log loss on the latest rows of its window; embeddings: NDCG@20 of the whole "
        "catalogue on the last likes before T0; neither sees the held-out window",
    )
    trials: int = Field(
        default=30, ge=1, le=2_000, description="trials in all, those of an earlier search on the same data included"
    )
    timeout_s: float = Field(
        default=1_800.0, ge=1, le=86_400, description="seconds after which no further trial begins"
    )
    prune: bool = Field(default=True, description="give up a ranker that is worse than half of the others were by then")
    resume: bool = Field(default=True, description="go on with the trials of an earlier search on the same data")
    threads: int = Field(default=2, ge=1, le=64, description="threads of one trial; trials run one after the other")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="seed of the sampler and of every fit")


@dataclass(frozen=True)
class Range:
    """The values one parameter may take, both ends included; `log` spaces them by ratio."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


SPACES: Final[dict[Stage, dict[str, Range]]] = {
    "ranker": {
        "learning_rate": Range(0.02, 0.4, log=True),
        "max_depth": Range(2, 8, whole=True),
        "min_child_weight": Range(1, 200, log=True),
        "subsample": Range(0.5, 1),
        "column_sample": Range(0.4, 1),
        "l2": Range(0.1, 200, log=True),
    },
    "embeddings": {
        "dimensions": Range(8, 128, log=True, whole=True),
        "alpha": Range(1, 400, log=True),
        "pass_confidence": Range(1, 400, log=True),
        "regularization": Range(1, 4_000, log=True),
        "content_rounds": Range(0, 16, whole=True),
    },
}
MAXIMISED: Final[frozenset[Stage]] = frozenset({"embeddings"})
MEASURES: Final[dict[Stage, str]] = {
    "ranker": "validation_log_loss",
    "embeddings": "validation_ndcg_at_20",
}
