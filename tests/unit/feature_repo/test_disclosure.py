"""What an explanation may name to the one who asks."""

import pytest

from feature_repo.layout import (
    ACTIVITY,
    DISCLOSED,
    RANKING_FEATURES,
    RECIPROCITY,
    SIDE_COLUMNS,
    other_way_round,
)

PRIVATE = (
    *(f"candidate_{column}" for column in SIDE_COLUMNS),
    *(f"requester_{column}" for column in (*ACTIVITY.columns, *RECIPROCITY.columns) if "received" in column),
    "candidate_idle_days",
    "candidate_tenure_days",
    "requester_age_position",  # the ages that the other wishes for
    "distance_to_candidate_limit",
    "liked_requester",
    "liked_candidate",
    "similarity_to_liked_backward",
    "attribute_distance",
    "attribute_gap_00",
)
OWN_MESSAGES = "requester_messages_received_30d"


def test_everything_that_may_be_named_is_a_feature() -> None:
    assert set(RANKING_FEATURES) >= DISCLOSED


@pytest.mark.parametrize("name", sorted({*PRIVATE} - {OWN_MESSAGES}))
def test_what_others_did_or_wish_for_is_never_named(name: str) -> None:
    assert name not in DISCLOSED


def test_what_is_new_is_not_named() -> None:
    assert "candidate_rings_the_bell_7d" not in DISCLOSED
    assert "requester_rings_the_bell_7d" not in DISCLOSED


def test_a_name_turned_round_twice_is_itself() -> None:
    assert [other_way_round(other_way_round(name)) for name in RANKING_FEATURES] == list(RANKING_FEATURES)
    pairs = {"age_requester": "age_candidate", "score_backward": "score_forward", "distance_km": "distance_km"}
    assert {name: other_way_round(name) for name in pairs} == pairs
    assert other_way_round("requester_idle_days") == "candidate_idle_days"
