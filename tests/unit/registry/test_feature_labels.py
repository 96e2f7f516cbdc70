import pytest

from feature_repo.layout import RANKING_FEATURES
from registry.models.feature_labels import is_free_slot, readable

OWNERS = {6: "height", 0: "income"}


@pytest.mark.parametrize(
    ("feature", "label"),
    [
        ("candidate_attribute_06", "candidate_attribute_height"),
        ("requester_attribute_00", "requester_attribute_income"),
        ("attribute_gap_06", "attribute_gap_height"),
        ("candidate_attribute_07", "candidate_attribute_07"),
        ("distance_km", "distance_km"),
    ],
)
def test_an_imported_attribute_is_named_as_its_column_was(feature: str, label: str) -> None:
    assert readable(feature, OWNERS) == label


def test_no_two_features_get_one_name() -> None:
    owners = {slot: f"name_{slot}" for slot in range(16)}
    assert len({readable(feature, owners) for feature in RANKING_FEATURES}) == len(RANKING_FEATURES)


def test_a_slot_without_an_attribute_is_free() -> None:
    assert is_free_slot("candidate_attribute_07", OWNERS)
    assert not is_free_slot("candidate_attribute_06", OWNERS)
    assert not is_free_slot("distance_km", OWNERS)
