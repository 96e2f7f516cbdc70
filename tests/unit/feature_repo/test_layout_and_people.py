from pathlib import Path

import numpy as np
import pytest

from feature_repo import schema
from feature_repo.errors import FeatureError, MalformedFeatures, UnknownColumn
from feature_repo.layout import ACTIVITY, PROFILE, RANKING_FEATURES, VIEWS
from feature_repo.population.people import People
from feature_repo.transforms import smoothed_rate
from tests.people_worlds import crowd, person


def test_column_names_are_unique_and_found() -> None:
    for layout in VIEWS:
        assert len(set(layout.columns)) == layout.width
        assert [layout.index(column) for column in layout.columns] == list(range(layout.width))
    assert len(set(RANKING_FEATURES)) == len(RANKING_FEATURES)


def test_an_unknown_column_is_refused_by_name() -> None:
    with pytest.raises(UnknownColumn, match="shoe_size"):
        PROFILE.index("shoe_size")
    assert issubclass(UnknownColumn, FeatureError)


def test_the_ranker_never_sees_coordinates_bits_or_clock_readings() -> None:
    for feature in RANKING_FEATURES:
        assert not any(word in feature for word in ("latitude", "longitude", "interests_0", "_day", "birth")) or (
            feature.endswith("_days")
        )


def test_the_default_rate_of_nobody_is_the_smoothed_rate_of_no_decisions() -> None:
    assert smoothed_rate(0, 0) == ACTIVITY.default_row[ACTIVITY.index("like_rate_given")]
    assert smoothed_rate(1, 1) < 0.5


def test_default_rows_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PROFILE.default_row[0] = 1


def test_a_schema_is_met_by_more_features_and_by_no_other_version_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on = schema.schema_of(["distance_km", "candidate_matches", "requester_matches"])
    assert trained_on == "candidate_matches:1 distance_km:1 requester_matches:1"
    assert schema.not_offered(trained_on, schema.offered_schema()) == []
    assert schema.not_offered(schema.FORMER, schema.offered_schema()) == []
    assert schema.part_of(schema.offered_schema(), ["distance_km"]) == "distance_km:1"
    monkeypatch.setattr(schema, "VERSIONS", {"matches": 2})
    assert schema.not_offered(trained_on, schema.offered_schema()) == ["candidate_matches:1", "requester_matches:1"]
    assert schema.not_offered(schema.FORMER, schema.offered_schema()) == [schema.FORMER]


def test_people_are_sorted_by_id_and_found_by_id() -> None:
    people = People.concat([person(7, birth_day=7), person(3, birth_day=3)])
    assert people.user_ids.tolist() == [3, 7]
    assert people.profile[:, 0].tolist() == [3, 7]
    assert people.positions([7, 5, 3, 99]).tolist() == [1, -1, 0, -1]
    assert People.empty().positions([1]).tolist() == [-1]


def test_upsert_replaces_and_adds_and_leaves_the_original_alone() -> None:
    people = People.concat([person(1, birth_day=1), person(2, birth_day=2)])
    changed = people.upsert(People.concat([person(2, birth_day=20), person(3, birth_day=30)]))
    assert changed.profile[:, 0].tolist() == [1, 20, 30]
    assert people.profile[:, 0].tolist() == [1, 2]
    assert changed.without([1, 99]).user_ids.tolist() == [2, 3]
    assert people.upsert(People.empty()) is people


def test_taken_people_may_repeat_but_cannot_be_looked_up() -> None:
    people = crowd(4)
    taken = people.take([2, 0, 2])
    assert taken.user_ids.tolist() == [3, 1, 3]
    with pytest.raises(MalformedFeatures, match="out of order"):
        taken.positions([1])


def test_saved_people_come_back_mapped_and_equal(tmp_path: Path) -> None:
    people = crowd(10)
    people.save(tmp_path)
    loaded = People.load(tmp_path)
    assert type(loaded.profile) is np.ndarray
    assert not loaded.profile.flags.writeable
    np.testing.assert_array_equal(loaded.user_ids, people.user_ids)
    for mine, theirs in zip(loaded.views, people.views, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert people.nbytes == 10 * (8 + 4 * sum(layout.width for layout in VIEWS))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: People.build([1, 1]), "twice"),
        (lambda: People.build([1], np.zeros((1, 3), np.float32)), "user_profile"),
        (lambda: People(np.array([1.0]), *crowd(1).views), "int64"),
        (lambda: crowd(2).take([-1]), "unknown person"),
    ],
)
def test_malformed_people_are_refused(make: object, sentence: str) -> None:
    with pytest.raises(MalformedFeatures, match=sentence):
        make()  # type: ignore[operator]
