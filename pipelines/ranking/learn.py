"""From training rows to the two models of a ranker: what people choose, and what they like once they meet.

Data without passes teach no P(like): there both models learn from lists. Data without lists teach no choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.layout import (
    ATTRIBUTE_COLUMNS,
    LIST_COLUMNS,
    PAIR_COLUMNS,
    RANKING_FEATURES,
    SOURCE_COLUMNS,
    TASTE_COLUMNS,
)
from pipelines.ranking.config import RankerConfig
from pipelines.ranking.errors import OneClass
from pipelines.ranking.files import RankingRows
from pipelines.ranking.rows import RowKind
from pipelines.ranking.train import Progress, TrainingReport, order_statistics, train_ranker
from registry.models.ranker import Ranker

Floats = npt.NDArray[np.float32]
_CANARY_ROWS = 32
_OF_THE_MOMENT = ("_tenure_days", "_idle_days")
LIKES, CHOICES = "likes", "choices"
CHOICE_FEATURES = tuple(
    name
    for name in (*PAIR_COLUMNS, *LIST_COLUMNS, *(f"candidate_{slot}" for slot in ATTRIBUTE_COLUMNS))
    if not name.startswith(("requester_", "score_", "age_requester")) and not name.endswith(_OF_THE_MOMENT)
)
"""What the model of choices may see: places and shares among the candidates, and what profiles say of the pair.

Nothing about the requester alone, which cannot order a list; no count, whose size grows with the data; nothing of the
moment, which is another one when lists are asked for.
"""
PAIR_FEATURES = tuple(
    name for name in dict.fromkeys((*CHOICE_FEATURES, *TASTE_COLUMNS, *SOURCE_COLUMNS)) if name not in LIST_COLUMNS
)
"""What a model of likes may see that learned from lists: what is known of a pair in either direction."""


@dataclass(frozen=True)
class Learned:
    """The models as one ranker, and a report of each; `choice` is None where there was no list to learn from."""

    ranker: Ranker
    report: TrainingReport
    choice: TrainingReport | None

    @property
    def rounds(self) -> tuple[int, int | None]:
        """Return how many trees each model holds."""
        return self.report.rounds, None if self.choice is None else self.choice.rounds


def learn(
    rows: RankingRows,
    config: RankerConfig,
    *,
    rounds: tuple[int, int | None] | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> Learned:
    """Grow both models on all rows given; `rounds` fixes the numbers of trees instead of finding them.

    Raises:
        OneClass: neither the decisions nor the lists hold both answers.
        BadFeatures: no feature varies.
    """
    choice = rows.kind == RowKind.CHOICE
    fixed = rounds or (None, None)
    part, names = told_apart(rows)
    of_choice = None
    if _both(rows.labels[choice]):
        of_choice = _grown(rows, choice, choice_config(config), rounds=fixed[1], progress=progress, what=CHOICES)
    of_like = _grown(rows, part, config, rounds=fixed[0], progress=progress, what=LIKES, names=names)
    second = None if of_choice is None else _ranker(rows, choice, *of_choice)
    return Learned(
        _ranker(rows, part, *of_like, choice=second), of_like[1], None if of_choice is None else of_choice[1]
    )


def told_apart(rows: RankingRows) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Return the rows bool[n] that tell likes from what is none, and what a model of likes may see of them.

    They are the decisions; without a pass, those who were found for somebody, of whom some were liked afterwards.

    Raises:
        OneClass: neither the decisions nor the lists hold both answers.
    """
    like, choice = rows.kind == RowKind.LIKE, rows.kind == RowKind.CHOICE
    if _both(rows.labels[like]):
        return like, RANKING_FEATURES
    if _both(rows.labels[choice]):
        return choice, PAIR_FEATURES
    raise OneClass(
        f"All {int(like.sum())} decisions of the ranker's window are the same, and none of the people found for "
        "somebody was liked afterwards: import decisions of the other kind, or of so many people that some of those "
        "found are liked later."
    )


def choice_config(config: RankerConfig) -> RankerConfig:
    """Return the settings of the model of choices."""
    return config.model_copy(
        update={"max_depth": config.choice_depth, "rounds": config.choice_rounds, "monotone_places": True}
    )


def _grown(
    rows: RankingRows,
    part: npt.NDArray[np.bool_],
    config: RankerConfig,
    *,
    rounds: int | None,
    progress: Callable[[str], Progress] | None,
    what: str,
    names: tuple[str, ...] = CHOICE_FEATURES,
) -> tuple[Any, TrainingReport]:
    columns = [RANKING_FEATURES.index(name) for name in names]
    return train_ranker(
        rows.features[part][:, columns],
        rows.labels[part],
        rows.at_us[part],
        config,
        feature_names=names,
        weights=rows.weights[part],
        rounds=rounds,
        progress=None if progress is None else progress(what),
    )


def _ranker(
    rows: RankingRows,
    part: npt.NDArray[np.bool_],
    booster: Any,
    report: TrainingReport,
    choice: Ranker | None = None,
) -> Ranker:
    columns = [RANKING_FEATURES.index(name) for name in report.feature_names]
    features = rows.features[part]
    return Ranker.from_booster(
        booster,
        report.feature_names,
        canary_features=features[:_CANARY_ROWS][:, columns],
        fills=True,
        reference=order_statistics(features[:, columns]),
        choice=choice,
    ).offered(RANKING_FEATURES)


def _both(labels: Floats) -> bool:
    return bool((labels > 0).any()) and bool((labels <= 0).any())
