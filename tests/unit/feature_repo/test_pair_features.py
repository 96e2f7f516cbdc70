import calendar
import datetime as dt
import time

import numpy as np
import pytest

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import RANKING_FEATURES
from feature_repo.population.people import People
from feature_repo.transforms import (
    CONTENT_WIDTH,
    PairContext,
    content_inputs,
    content_score,
    haversine_km,
    mutually_eligible,
    ranking_features,
    ranking_features_both,
    ranking_matrix,
    whole_years,
)
from feature_repo.transforms.content import (
    AGE_WEIGHT,
    ATTRIBUTE_WEIGHT,
    DISTANCE_WEIGHT,
    HALF_AGE_GAP_YEARS,
    HALF_DISTANCE_KM,
    INTEREST_WEIGHT,
)
from feature_repo.transforms.measures import DAYS_PER_YEAR
from tests.people_worlds import BORN_1996_06_01, NOON, crowd, person

WOMAN, MAN = 1, 2


def value(features: np.ndarray, name: str) -> float:
    return float(features[0, RANKING_FEATURES.index(name)])


def context(n: int, seed: int = 0) -> PairContext:
    rng = np.random.default_rng(seed)
    return PairContext(*(rng.random(n).astype(np.float32) for _ in range(6)))


def test_every_column_of_both_directions_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    never, full = 777.25, np.full
    monkeypatch.setattr(np, "empty", lambda shape, dtype=float: full(shape, never, dtype))
    matrix = ranking_matrix(crowd(5, seed=1), crowd(5, seed=2), context(5), NOON)
    left_out = [RANKING_FEATURES[column] for column in np.flatnonzero((matrix == never).any(axis=0))]
    assert matrix.shape == (10, len(RANKING_FEATURES))
    assert not left_out


def test_the_pair_columns_say_what_their_names_say() -> None:
    anna = person(
        1,
        birth_day=BORN_1996_06_01,
        age_min=20,
        age_max=40,
        latitude=52.52,
        longitude=13.405,
        max_distance_km=100,
        interests_00=0b0111,
        interests_09=1,
        attribute_00=8,
        attribute_01=2,
        created_day=20000,
        last_active_day=20604.5,
        likes_sent_7d=4,
    )
    ben = person(
        2,
        birth_day=BORN_1996_06_01 + 365.2425 * 5,
        latitude=52.40,
        longitude=13.06,
        interests_00=0b0110,
        interests_08=1,
        attribute_00=6,
        attribute_05=1,
        n_interests=3,
        bio_length=120,
        matches=2,
    )
    features = ranking_features(
        anna, ben, PairContext(*(np.array([x], np.float32) for x in (0.5, 0.25, 0.75, 1.0))), NOON
    )
    assert value(features, "age_requester") == pytest.approx(30, abs=0.01)
    assert value(features, "age_gap") == pytest.approx(-5)
    assert value(features, "abs_age_gap") == pytest.approx(5)
    assert value(features, "candidate_age_position") == pytest.approx(0.25, abs=0.001)
    assert np.isnan(value(features, "requester_age_position"))
    assert value(features, "distance_km") == pytest.approx(26.9, abs=0.3)
    assert value(features, "log_distance_km") == pytest.approx(np.log1p(value(features, "distance_km")))
    assert value(features, "distance_to_requester_limit") == pytest.approx(0.269, abs=0.003)
    assert np.isnan(value(features, "distance_to_candidate_limit"))
    assert value(features, "shared_interests") == 2
    assert value(features, "interest_jaccard") == pytest.approx(2 / 5)
    assert value(features, "attribute_gap_00") == pytest.approx(2 / 8)
    assert np.isnan(value(features, "attribute_gap_01"))
    assert value(features, "attribute_distance") == pytest.approx(0.25)
    assert value(features, "requester_tenure_days") == pytest.approx(605.5)
    assert value(features, "requester_idle_days") == pytest.approx(1.0, abs=0.002)
    assert np.isnan(value(features, "candidate_idle_days"))
    assert value(features, "candidate_bio_length") == 120
    assert value(features, "requester_likes_sent_7d") == 4
    assert value(features, "candidate_matches") == 2
    assert value(features, "score_product") == 0.125
    assert value(features, "score_min") == 0.25
    assert value(features, "liked_requester") == 1.0


def test_what_one_side_wishes_of_the_other_is_measured_against_either_side_s_range() -> None:
    anna = person(1, birth_day=BORN_1996_06_01, age_min=20, age_max=40, max_distance_km=100, latitude=50, longitude=8)
    ben = person(2, birth_day=BORN_1996_06_01 + 365.2425 * 5, latitude=50.5, longitude=8)
    features = ranking_features(ben, anna, PairContext.unknown(1), NOON)
    assert value(features, "requester_age_position") == pytest.approx(0.25, abs=0.001)
    assert np.isnan(value(features, "candidate_age_position"))
    assert value(features, "distance_to_candidate_limit") == pytest.approx(0.556, abs=0.001)
    assert np.isnan(value(features, "distance_to_requester_limit"))


def test_both_directions_at_once_equal_each_on_its_own() -> None:
    anna, others, known = crowd(1), crowd(40, seed=1, first_id=2), context(40)
    forward, backward = ranking_features_both(anna, others, known, NOON)
    np.testing.assert_array_equal(forward, ranking_features(anna, others, known, NOON))
    np.testing.assert_array_equal(backward, ranking_features(others, anna, known.reversed(), NOON))
    assert np.array_equal(known.reversed().reversed().score_forward, known.score_forward)


def test_a_context_left_out_is_unknown_the_other_way_round() -> None:
    known = PairContext(*(np.ones(3, np.float32) for _ in range(4))).reversed()
    assert np.isnan(known.liked_requester).all()
    assert np.isnan(PairContext.unknown(3).score_forward).all()


def test_sides_of_different_numbers_are_refused() -> None:
    with pytest.raises(MalformedFeatures, match="2 requesters"):
        ranking_features(crowd(2), crowd(3), PairContext.unknown(3), NOON)


def test_pairs_are_computed_together_and_not_one_by_one() -> None:
    def work_s(n: int) -> float:
        """Return the least time of the processor, which other processes do not lengthen."""
        anna, others, known = crowd(1), crowd(n, first_id=2), context(n)
        times = []
        for _ in range(20):
            began = time.thread_time()
            ranking_features_both(anna, others, known, NOON)
            times.append(time.thread_time() - began)
        return min(times)

    assert work_s(300) < 50 * work_s(1)  # 4 times


@pytest.mark.parametrize(
    ("anna", "ben", "eligible"),
    [
        ({"seeking": 2**MAN, "gender": WOMAN}, {"seeking": 2**WOMAN, "gender": MAN}, True),
        ({"seeking": 2**MAN, "gender": WOMAN}, {"seeking": 2**MAN, "gender": MAN}, False),
        ({"seeking": 2**WOMAN, "gender": WOMAN}, {"seeking": 2**WOMAN, "gender": MAN}, False),
        ({"seeking": 2**MAN}, {"gender": MAN}, True),
        ({"seeking": 2**MAN}, {"gender": 0}, False),
        ({"seeking": 2**MAN}, {"gender": float("nan")}, False),
        ({"seeking": float("nan")}, {"gender": float("nan")}, True),
        ({}, {}, True),
        ({"age_min": 30}, {"birth_day": BORN_1996_06_01}, True),
        ({"age_min": 31}, {"birth_day": BORN_1996_06_01}, False),
        ({"age_max": 30}, {"birth_day": BORN_1996_06_01}, True),
        ({"age_max": 29}, {"birth_day": BORN_1996_06_01}, False),
        ({"age_min": 30}, {"birth_day": BORN_1996_06_01 + 1}, False),  # thirty only tomorrow
        ({"age_min": 18}, {}, False),  # an unknown age fits nobody who asks for one
        ({"max_distance_km": 26}, {}, True),  # an unknown home passes
        (
            {"max_distance_km": 26, "latitude": 52.52, "longitude": 13.405},
            {"latitude": 52.4, "longitude": 13.06},
            False,
        ),
        ({"max_distance_km": 28, "latitude": 52.52, "longitude": 13.405}, {"latitude": 52.4, "longitude": 13.06}, True),
        (
            {"max_distance_km": 28, "latitude": 52.52, "longitude": 13.405},
            {"latitude": 52.53, "longitude": 13.41},
            True,
        ),
        ({"max_distance_km": 28, "latitude": 52.52, "longitude": 13.405}, {"latitude": 54, "longitude": 13.4}, False),
    ],
)
def test_both_sides_must_accept_each_other(
    anna: dict[str, float],
    ben: dict[str, float],
    eligible: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    one, other = person(1, **anna), person(2, **ben)
    assert mutually_eligible(one, other, NOON).tolist() == [eligible]
    assert mutually_eligible(other, one, NOON).tolist() == [eligible]
    # An instant for each pair is another way through: for pairs of any two, not for one person and many.
    assert mutually_eligible(one, other, np.array([NOON])).tolist() == [eligible]
    assert mutually_eligible(other, one, np.array([NOON])).tolist() == [eligible]


def test_nobody_is_eligible_for_themselves() -> None:
    both = People.concat([person(1), person(2)])
    assert mutually_eligible(person(1), both, NOON).tolist() == [False, True]
    assert mutually_eligible(person(1), both, np.array([NOON, NOON])).tolist() == [False, True]


def test_whole_years_are_birthdays_had() -> None:
    rng = np.random.default_rng(0)
    epoch = dt.date(1970, 1, 1)
    born = rng.integers(-9000, 19000, 400)
    at = rng.integers(19001, 24000, 400)
    ages = whole_years(born, at * 86400.0 + 3600)
    for birth, now, age in zip(born, at, ages, strict=True):
        birthday, today = epoch + dt.timedelta(int(birth)), epoch + dt.timedelta(int(now))
        had = (today.month, today.day) >= (birthday.month, birthday.day)
        assert age == today.year - birthday.year - (not had)
    leap = calendar.timegm((2004, 2, 29, 0, 0, 0)) / 86400
    assert whole_years([leap], calendar.timegm((2025, 2, 28, 23, 0, 0))).tolist() == [20]
    assert whole_years([leap], calendar.timegm((2025, 3, 1, 1, 0, 0))).tolist() == [21]


def test_known_distances_are_right() -> None:
    assert haversine_km([52.52], [13.405], [48.8566], [2.3522]) == pytest.approx([877.5], abs=1)
    assert haversine_km([0.0], [0.0], [0.0], [180.0]) == pytest.approx([20015.1], abs=0.1)
    assert haversine_km([10.0], [20.0], [10.0], [20.0]).tolist() == [0.0]


def test_closer_profiles_have_better_content_scores() -> None:
    anna = person(1, birth_day=9000, latitude=50, longitude=8, interests_00=0b111, attribute_00=5)
    twin = person(2, birth_day=9000, latitude=50, longitude=8, interests_00=0b111, attribute_00=5)
    stranger = person(3, birth_day=2000, latitude=-50, longitude=90, interests_00=0b11000, attribute_00=-5)
    blank = person(4)
    scores = content_score(anna, People.concat([twin, stranger, blank]), NOON)
    assert scores[0] == 1.0
    assert scores[0] > scores[2] > scores[1] > 0


def test_closeness_is_one_half_at_the_half_gap_and_at_the_half_distance() -> None:
    anna = person(1, birth_day=9000, latitude=50, longitude=8)
    younger = person(2, birth_day=9000 + HALF_AGE_GAP_YEARS * DAYS_PER_YEAR, latitude=50, longitude=8)
    farther = person(3, birth_day=9000, latitude=50 + HALF_DISTANCE_KM / 111.195, longitude=8)
    assert INTEREST_WEIGHT + AGE_WEIGHT + DISTANCE_WEIGHT + ATTRIBUTE_WEIGHT == 1
    others = 0.5 * ATTRIBUTE_WEIGHT  # nothing is known of them, and nobody has an interest
    assert content_score(anna, People.concat([younger, farther]), NOON) == pytest.approx(
        [others + AGE_WEIGHT / 2 + DISTANCE_WEIGHT, others + AGE_WEIGHT + DISTANCE_WEIGHT / 2], abs=1e-4
    )


def test_content_inputs_are_finite_and_of_the_declared_width() -> None:
    inputs = content_inputs(People.concat([crowd(50), person(99)]), NOON)
    assert inputs.shape == (51, CONTENT_WIDTH)
    assert inputs.dtype == np.float32
    assert np.isfinite(inputs).all()
    assert np.abs(inputs).max() < 20
    assert content_inputs(People.empty(), NOON).shape == (0, CONTENT_WIDTH)
