"""What a ranker learned from, as rows for a person: each feature's share of the gain, and what was dropped and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipelines.presentation import table
from pipelines.ranking.learn import Learned
from pipelines.ranking.train import TrainingReport
from registry.models.feature_labels import is_free_slot, readable

SHOWN_FEATURES = 40


def named_importance(report: TrainingReport, owners: Mapping[int, str]) -> dict[str, float]:
    """Return each feature's share of the gain by the name that a person knows; `owners` is attribute by slot."""
    return {readable(name, owners): share for name, share in report.importance.items()}


@dataclass(frozen=True)
class FeatureTables:
    """Shares of the gain in the model of likes and in that of choices, and the columns that nothing is learned from."""

    importance: dict[str, float]
    choices: dict[str, float]
    dropped: dict[str, str]

    @classmethod
    def of(cls, early: TrainingReport, final: Learned, owners: Mapping[int, str]) -> "FeatureTables":
        """Read what is released, and what the early rows did not hold; a slot without an attribute is no column."""
        dropped = {readable(name, owners): why for name, why in early.dropped.items() if not is_free_slot(name, owners)}
        choices = {} if final.choice is None else named_importance(final.choice, owners)
        return cls(named_importance(final.report, owners), choices, dropped)

    def files(self) -> dict[str, str]:
        """Return each table as CSV by file name."""
        frames = {
            "feature_importance": pd.DataFrame(_shares(self.importance)),
            "choice_importance": pd.DataFrame(_shares(self.choices)),
            "dropped_features": pd.DataFrame(self._why(), columns=["feature", "why"]),
        }
        return {f"{name}.csv": frame.to_csv(index=False) for name, frame in frames.items()}

    def shown(self) -> dict[str, Any]:
        """Return the tables of the ranker's page, the longer ones cut."""
        return {
            "importance": table(_shares(self.importance)[:SHOWN_FEATURES]),
            "importance_of_choices": table(_shares(self.choices)[:SHOWN_FEATURES]),
            "dropped": table(self._why()),
        }

    def _why(self) -> list[dict[str, str]]:
        return [{"feature": name, "why": why} for name, why in self.dropped.items()]


def _shares(importance: Mapping[str, float]) -> list[dict[str, str | float]]:
    return [{"feature": name, "share_of_gain": share} for name, share in importance.items()]
