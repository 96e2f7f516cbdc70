"""The three time windows on one global clock: embeddings before T0, ranker in (T0, T1], held out in (T1, end].

Nobody has a clock of their own: a split per person would let the answer to a held-out like sit in the other
person's training part. A window without a decision is refused.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipelines.evaluation.config import WindowConfig
from pipelines.evaluation.errors import EmptyWindow
from pipelines.features.events import Events, instant


@dataclass(frozen=True)
class Windows:
    """T0, T1 and the end as microseconds since 1970, and how many decisions each window holds."""

    t0_us: int
    t1_us: int
    end_us: int
    decisions: tuple[int, int, int]

    @property
    def t0(self) -> pd.Timestamp:
        """Return the last instant the embeddings may know."""
        return instant(self.t0_us)

    @property
    def t1(self) -> pd.Timestamp:
        """Return the last instant the ranker may know."""
        return instant(self.t1_us)

    @property
    def end(self) -> pd.Timestamp:
        """Return the last instant of the held-out window."""
        return instant(self.end_us)


def split_windows(interactions: Events | pd.DataFrame, config: WindowConfig | None = None) -> Windows:
    """Split by shares of the decisions, never between two decisions of one instant.

    Raises:
        EmptyWindow: a window would hold no decision.

    """
    config = config or WindowConfig()
    events = interactions if isinstance(interactions, Events) else Events.from_frame(interactions)
    times = events.at_us[events.is_decision]
    if not times.size:
        raise EmptyWindow("There are no likes or passes to learn from: import interactions first.")
    end_us = int(times[-1])
    cuts = [int(times[max(count - 1, 0)]) for count in _counts(config, times.size)]
    edges = np.searchsorted(times, [*cuts, end_us], side="right")
    counts = np.diff(np.concatenate([[0], edges]))
    for name, count in zip(("embeddings", "ranker", "held-out"), counts, strict=True):
        if count == 0:
            raise EmptyWindow(
                f"The {name} window holds none of the {times.size} decisions: "
                f"import more days of data or move the shares {_shares(config)}."
            )
    return Windows(cuts[0], cuts[1], end_us, (int(counts[0]), int(counts[1]), int(counts[2])))


def _counts(config: WindowConfig, n: int) -> tuple[int, int]:
    """Return how many decisions lie up to T0 and up to T1: trees need rows, embeddings make do with less."""
    embeddings, ranking = (int(np.ceil(share * n)) for share in _shares(config))
    return min(embeddings, max(ranking - config.ranking_decisions, ranking // 2)), ranking


def _shares(config: WindowConfig) -> tuple[float, float]:
    return config.embedding_share, config.ranking_share


def windows_between(events: Events, t0_us: int, t1_us: int) -> Windows:
    """Return windows with these edges and the last decision as their end."""
    times = events.at_us[events.is_decision]
    end_us = int(times[-1])
    edges = np.searchsorted(times, [t0_us, t1_us, end_us], side="right")
    first, second, third = (int(count) for count in np.diff(np.concatenate([[0], edges])))
    return Windows(t0_us, t1_us, end_us, (first, second, third))
