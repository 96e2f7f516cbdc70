"""Directed decisions of the ranker's window as labelled pairs, each with what was known just before it.

One row per directed pair: its first decision ever, if that falls into the window, so that no pair was seen by the
embedding. A like is 1, a pass is 0. A window without decisions is refused.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.transforms import PairContext
from pipelines.features.events import Events
from pipelines.ranking.config import DatasetConfig
from pipelines.ranking.context import Factors, LikeHistory, pair_context
from pipelines.ranking.errors import NoLabels
from pipelines.retrieval.dataset import first_decisions

CONTEXT = ("score_forward", "score_backward", "similarity_to_liked", "liked_requester")


def labelled_pairs(events: Events, after_us: int, until_us: int, config: DatasetConfig | None = None) -> Events:
    """Return the first decisions with after < time <= until, at most `max_rows`, in order of time.

    Raises:
        NoLabels: the window holds no decision.

    """
    config = config or DatasetConfig()
    decided = first_decisions(events.between(None, until_us)).between(after_us, until_us)
    if not len(decided):
        raise NoLabels("No pair was decided for the first time in the ranker's window: import more days of data.")
    if len(decided) <= config.max_rows:
        return decided
    rng = np.random.default_rng(config.seed)
    return decided.take(np.sort(rng.choice(len(decided), size=config.max_rows, replace=False)))


def context_of(
    pairs: Events, events: Events, factors: Factors, config: DatasetConfig | None = None, *, pending_likes: bool = False
) -> PairContext:
    """Return the context of labelled pairs in both directions, from an embedding fitted before their window."""
    config = config or DatasetConfig()
    return pair_context(
        pairs.actor.astype(np.int64),
        pairs.target.astype(np.int64),
        pairs.at_us,
        factors,
        likes=LikeHistory(events),
        last_likes=config.last_likes,
        pending_likes=pending_likes,
    )


def pairs_frame(pairs: Events, context: PairContext) -> pd.DataFrame:
    """Return the entity rows of the point-in-time join: ids, event_timestamp in UTC, context, label float32."""
    frame = pd.DataFrame(
        {
            "requester_id": pairs.user_ids[pairs.actor],
            "candidate_id": pairs.user_ids[pairs.target],
            "event_timestamp": pd.to_datetime(pairs.at_us, unit="us", utc=True).as_unit("us"),
        }
    )
    for name in CONTEXT:
        frame[name] = getattr(context, name)
    frame["label"] = labels(pairs)
    return frame


def reversed_frame(pairs: Events, context: PairContext) -> pd.DataFrame:
    """Return the same pairs asked the other way round at the same instants, without labels."""
    other = context.reversed()
    frame = pairs_frame(pairs, other).drop(columns="label")
    return frame.rename(columns={"requester_id": "candidate_id", "candidate_id": "requester_id"})


def labels(pairs: Events) -> npt.NDArray[np.float32]:
    """Return 1 for a like and 0 for a pass, float32[n]."""
    return pairs.is_like.astype(np.float32)
