"""Three windows on one clock."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from pipelines.evaluation.config import WindowConfig
from pipelines.evaluation.errors import EmptyWindow, EvaluationError
from pipelines.evaluation.windows import split_windows
from pipelines.features.events import LIKE, MESSAGE, Events


def events(*at_us: int, kind: int = LIKE) -> Events:
    n = len(at_us)
    return Events(
        np.array([1, 2], dtype=np.int64),
        np.zeros(n, dtype=np.int32),
        np.ones(n, dtype=np.int32),
        np.full(n, kind, dtype=np.int8),
        np.array(at_us, dtype=np.int64),
    )


def test_windows_follow_the_shares_of_decisions() -> None:
    windows = split_windows(events(*range(1, 21)), WindowConfig(ranking_decisions=0))
    assert (windows.t0_us, windows.t1_us, windows.end_us) == (14, 17, 20)
    assert windows.decisions == (14, 3, 3)
    assert windows.t0 < windows.t1 < windows.end
    assert windows.t0.tz is not None


def test_decisions_of_one_instant_are_never_split() -> None:
    windows = split_windows(
        events(1, 2, 3, 3, 3, 3, 4, 5, 6, 7), WindowConfig(embedding_share=0.4, ranking_share=0.8, ranking_decisions=0)
    )
    assert windows.decisions == (6, 2, 2)


def test_a_small_set_gives_the_ranker_more_and_leaves_the_embeddings_half() -> None:
    config = WindowConfig(embedding_share=0.7, ranking_share=0.8, ranking_decisions=30)
    assert split_windows(events(*range(1, 101)), config).decisions == (50, 30, 20)
    assert split_windows(events(*range(1, 21)), config).decisions == (8, 8, 4)
    assert split_windows(events(*range(1, 1001)), config).decisions == (700, 100, 200)


def test_messages_do_not_move_the_clock() -> None:
    decisions, messages = events(*range(1, 21)), events(*range(100, 200), kind=MESSAGE)
    both = Events(decisions.user_ids, *(np.concatenate(pair) for pair in zip(
        (decisions.actor, decisions.target, decisions.kind, decisions.at_us),
        (messages.actor, messages.target, messages.kind, messages.at_us),
        strict=True,
    )))  # fmt: skip
    assert split_windows(both) == split_windows(decisions)


@pytest.mark.parametrize(
    ("times", "said"),
    [((), "no likes or passes"), ((1, 2, 3, 4, 5, 6, 7, 9, 9, 9), "held-out window"), ((5,), "ranker")],
)
def test_an_empty_window_is_refused_in_one_sentence(times: tuple[int, ...], said: str) -> None:
    with pytest.raises(EmptyWindow, match=said) as caught:
        split_windows(events(*times))
    assert isinstance(caught.value, EvaluationError)


def test_shares_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be below"):
        WindowConfig(embedding_share=0.9, ranking_share=0.8)


def test_a_frame_is_read_like_events() -> None:
    frame = pd.DataFrame(
        {
            "actor_id": np.ones(20, dtype=np.int64),
            "target_id": np.full(20, 2, dtype=np.int64),
            "kind": pd.Categorical(["like"] * 20),
            "occurred_at": pd.to_datetime(np.arange(1, 21), unit="us", utc=True),
        }
    )
    assert split_windows(frame) == split_windows(events(*range(1, 21)))
