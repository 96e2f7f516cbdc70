"""What a snapshot counts, and above all what it does not."""

import numpy as np
import pandas as pd
import pytest

from feature_repo.layout import ACTIVITY, RATE_PRIOR, RATE_STRENGTH, RECIPROCITY
from pipelines.features.aggregates import snapshot_instants, snapshots, vectors_at
from pipelines.features.errors import FeatureSnapshotError, MalformedEvents, NoSnapshots
from pipelines.features.events import Events, instant

START = pd.Timestamp("2026-01-01", tz="UTC")


def frame(*rows: tuple[int, int, str, float]) -> pd.DataFrame:
    """Rows of actor, target, kind, day since the start."""
    actors, targets, kinds, days = zip(*rows, strict=True)
    at = pd.DatetimeIndex([START + pd.Timedelta(days=day) for day in days]).as_unit("us")
    return pd.DataFrame(
        {
            "actor_id": np.array(actors, dtype=np.int64),
            "target_id": np.array(targets, dtype=np.int64),
            "kind": pd.Categorical(kinds),
            "occurred_at": at,
        }
    )


def day(number: float) -> pd.Timestamp:
    return START + pd.Timedelta(days=number)


def cell(values: np.ndarray, layout: object, column: str, row: int) -> float:
    return float(values[row, layout.index(column)])  # type: ignore[attr-defined]


def test_counts_fall_into_their_windows_and_rates_are_smoothed() -> None:
    events = Events.from_frame(
        frame((1, 2, "like", 0), (1, 3, "pass", 20), (2, 1, "superlike", 25), (1, 2, "message", 26))
    )
    activity, reciprocity = vectors_at(events, day(31))
    assert cell(activity, ACTIVITY, "likes_sent_30d", 0) == 0  # 31 days ago
    assert cell(activity, ACTIVITY, "passes_sent_30d", 0) == 1
    assert cell(activity, ACTIVITY, "decisions_sent", 0) == 2
    assert cell(activity, ACTIVITY, "likes_received_7d", 0) == 1
    assert cell(activity, ACTIVITY, "like_rate_given", 0) == np.float32(
        (1 + RATE_PRIOR * RATE_STRENGTH) / (2 + RATE_STRENGTH)
    )
    assert cell(reciprocity, RECIPROCITY, "matches", 0) == cell(reciprocity, RECIPROCITY, "matches_7d", 1) == 1
    assert cell(reciprocity, RECIPROCITY, "messages_sent_30d", 0) == 1
    assert cell(reciprocity, RECIPROCITY, "messages_received_30d", 1) == 1


def test_an_event_at_the_instant_itself_is_not_counted() -> None:
    events = Events.from_frame(frame((1, 2, "like", 5)))
    at, after = vectors_at(events, day(5))[0], vectors_at(events, day(5) + pd.Timedelta(microseconds=1))[0]
    assert cell(at, ACTIVITY, "decisions_sent", 0) == 0
    assert cell(after, ACTIVITY, "decisions_sent", 0) == 1


def test_a_planted_future_event_changes_no_earlier_snapshot() -> None:
    rows = [(1, 2, "like", 1.0), (2, 1, "pass", 2.0), (3, 1, "like", 3.0)]
    instants = [day(2), day(4)]
    honest = list(snapshots(Events.from_frame(frame(*rows)), instants))
    planted = list(snapshots(Events.from_frame(frame(*rows, (2, 3, "like", 4.0), (3, 2, "like", 9.0))), instants))
    for left, right in zip(honest, planted, strict=True):
        np.testing.assert_array_equal(left.user_ids, right.user_ids)
        np.testing.assert_array_equal(left.activity, right.activity)
        np.testing.assert_array_equal(left.reciprocity, right.reciprocity)


def test_only_people_whose_vector_changed_get_a_row_also_when_a_window_empties() -> None:
    events = Events.from_frame(frame((1, 2, "like", 0), (3, 4, "pass", 10)))
    changed = [snapshot.user_ids.tolist() for snapshot in snapshots(events, [day(1), day(2), day(9), day(11), day(12)])]
    assert changed == [[1, 2], [], [1, 2], [3, 4], []]  # on day 9 the like left the seven days


def test_rolling_totals_equal_counting_from_scratch() -> None:
    rng = np.random.default_rng(3)
    n, m = 30, 2_000
    actor = rng.integers(1, n, m)
    target = actor + rng.integers(1, n, m)
    kinds = rng.choice(["like", "pass", "superlike", "message", "block"], m)
    events = Events.from_frame(frame(*zip(actor, target, kinds, np.sort(rng.random(m) * 80), strict=True)))  # type: ignore[arg-type]
    seen_activity = ACTIVITY.default_rows(events.n_people)
    seen_reciprocity = RECIPROCITY.default_rows(events.n_people)
    for snapshot in snapshots(events, [day(number) for number in (3, 10, 11, 45, 60, 80)]):
        at = np.searchsorted(events.user_ids, snapshot.user_ids)
        seen_activity[at], seen_reciprocity[at] = snapshot.activity, snapshot.reciprocity
        activity, reciprocity = vectors_at(events, snapshot.at)
        np.testing.assert_array_equal(seen_activity, activity)
        np.testing.assert_array_equal(seen_reciprocity, reciprocity)


def test_a_match_counts_from_the_second_like_until_a_pass_or_a_block() -> None:
    events = Events.from_frame(
        frame((1, 2, "like", 0), (2, 1, "like", 3), (1, 2, "like", 5), (1, 3, "like", 6), (2, 1, "pass", 20))
    )
    counted = {
        at: [
            cell(vectors_at(events, day(at))[1], RECIPROCITY, name, 0)
            for name in ("matches_7d", "matches_30d", "matches")
        ]
        for at in (3, 4, 11, 20, 21)
    }
    assert counted == {3: [0, 0, 0], 4: [1, 1, 1], 11: [0, 1, 1], 20: [0, 1, 1], 21: [0, 0, 0]}
    blocked = Events.from_frame(frame((1, 2, "like", 0), (2, 1, "like", 3), (2, 1, "block", 4)))
    assert cell(vectors_at(blocked, day(5))[1], RECIPROCITY, "matches", 0) == 0


def test_instants_end_at_the_end_and_keep_to_the_bound() -> None:
    instants = snapshot_instants(day(0), day(10), 86_400, 60)
    assert instants[-1] == day(10)
    assert len(instants) == 11
    assert len(snapshot_instants(day(0), day(1_000), 3_600, 60)) == 60
    assert snapshot_instants(day(3), day(3), 3_600, 60) == [day(3)]
    with pytest.raises(NoSnapshots, match="end comes first"):
        snapshot_instants(day(1), day(0), 3_600, 60)


def test_events_are_sorted_and_outsiders_left_out() -> None:
    shuffled = frame((1, 2, "like", 5), (2, 9, "like", 1), (2, 1, "pass", 0))
    events = Events.from_frame(shuffled, np.array([1, 2], dtype=np.int64))
    assert events.actor.tolist() == [1, 0]
    assert instant(int(events.at_us[0])) == day(0)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (frame((1, 2, "like", 0)).drop(columns="kind"), "lack the column kind"),
        (frame((1, 2, "wink", 0)), "wink"),
        (frame((1, 2, "like", 0)).assign(occurred_at=pd.Timestamp("2026-01-01")), "not an instant"),
    ],
)
def test_a_frame_that_breaks_the_contract_is_refused(broken: pd.DataFrame, said: str) -> None:
    with pytest.raises(MalformedEvents, match=said) as caught:
        Events.from_frame(broken)
    assert isinstance(caught.value, FeatureSnapshotError)


def test_a_widened_interval_still_gives_instants_that_postgres_can_hold() -> None:
    start, end = pd.Timestamp("2026-01-01", tz="UTC"), pd.Timestamp("2026-01-02T00:00:01", tz="UTC")
    assert all(at.nanosecond == 0 for at in snapshot_instants(start, end, 60.0, 9))
