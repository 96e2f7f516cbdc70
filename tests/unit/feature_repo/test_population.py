from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import MalformedFeatures
from feature_repo.layout import ACTIVITY, PROFILE
from feature_repo.population.geogrid import GeoGrid
from feature_repo.population.people import People
from feature_repo.population.picking import best_first
from feature_repo.population.population import SOURCES, Population
from feature_repo.population.traits import NOBODY_HAS_ANY, GivenTraits, trait_code
from feature_repo.transforms import NumberWish, Terms, Wishes, haversine_km, mutually_eligible, whole_years
from tests.people_worlds import NOON, crowd, person


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def column(people: People, name: str) -> np.ndarray:
    return people.profile[:, PROFILE.index(name)].astype(np.float64)


def test_a_small_world_is_searched_whole() -> None:
    people = crowd(300)
    population = Population.build(people)
    requester = people.take([10])
    everyone = set(people.user_ids[mutually_eligible(requester, people, NOON)].tolist())
    found = population.sources(requester, 300, rng(), NOON)
    assert tuple(found) == SOURCES
    for result in found.values():
        assert set(result.user_ids.tolist()) == everyone
        np.testing.assert_array_equal(population.rows(result.positions).user_ids, result.user_ids)
        assert (result.propensity == 1).all()


def test_every_source_returns_only_mutually_eligible_people() -> None:
    people = crowd(3000, seed=2)
    population = Population.build(people)
    for position in range(0, 3000, 150):
        requester = people.take([position])
        found = population.sources(requester, 20, rng(), NOON, max_pool=200)
        assert tuple(found) == SOURCES
        for result in found.values():
            assert mutually_eligible(requester, population.rows(result.positions), NOON).all()
            assert len(set(result.user_ids.tolist())) == len(result.user_ids) <= 20


def test_sources_are_ordered_by_what_they_are_named_after() -> None:
    near = [
        person(i, latitude=50.0, longitude=8.0 + i / 100, like_rate_received=i / 10, birth_day=9000)
        for i in range(2, 9)
    ]
    population = Population.build(People.concat(near))
    requester = person(1, latitude=50.0, longitude=8.0, birth_day=9000)
    found = population.sources(requester, 3, rng(), NOON)
    assert found["content"].user_ids.tolist() == [2, 3, 4]
    assert found["popular_nearby"].user_ids.tolist() == [8, 7, 6]
    assert found["random"].propensity == pytest.approx(np.full(3, 3 / 7))


def test_a_limit_in_kilometres_is_honoured_across_the_date_line_and_near_the_pole() -> None:
    for latitude, longitude in ((0.0, 179.95), (0.0, -179.95), (84.0, 10.0), (-41.3, 174.8)):
        random = np.random.default_rng(1)
        people = People.concat(
            [
                person(
                    i,
                    latitude=latitude + random.normal() * 0.8,
                    longitude=(longitude + random.normal() * 0.8 / np.cos(np.radians(latitude)) + 180) % 360 - 180,
                )
                for i in range(2, 300)
            ]
        )
        requester = person(1, latitude=latitude, longitude=longitude, max_distance_km=60)
        near = haversine_km(
            column(people, "latitude"), column(people, "longitude"), column(requester, "latitude"),
            column(requester, "longitude"),
        ) <= 60  # fmt: skip
        found = Population.build(people).sources(requester, 300, rng(), NOON)["content"]
        assert set(found.user_ids.tolist()) == set(people.user_ids[near].tolist())
        assert 0 < near.sum() < len(people)


def test_a_crowded_place_gives_a_bounded_pool_and_says_how_likely_each_was() -> None:
    n = 5000
    people = People.build(np.arange(1, n + 1))
    people.profile[:, PROFILE.index("latitude")] = 50
    people.profile[:, PROFILE.index("longitude")] = 8
    population = Population.build(people)
    pool = population.nearby(people.take([0]), rng(), 1000)
    assert len(set(pool.positions.tolist())) == 1000
    assert pool.inclusion == 0.2
    assert not pool.exhausted
    drawn = population.sources(people.take([0]), 10, rng(), NOON, max_pool=1000)["random"]
    assert drawn.propensity == pytest.approx(np.full(10, 10 / n), rel=0.01)


def test_random_exploration_reaches_everybody_about_equally() -> None:
    people = People.build(np.arange(1, 41))
    population, random = Population.build(people), rng()
    seen = np.zeros(41)
    for _ in range(800):
        seen[population.sources(people.take([0]), 4, random, NOON)["random"].user_ids] += 1
    assert seen[1] == 0
    assert seen[2:].min() > 800 * 4 / 39 * 0.6


def test_people_who_are_too_few_nearby_are_sought_further_away() -> None:
    old = [person(i, latitude=50, longitude=8, birth_day=0) for i in range(2, 60)]
    young = [person(i, latitude=53, longitude=12, birth_day=12000) for i in range(60, 70)]
    requester = person(1, latitude=50, longitude=8, age_max=30)
    found = Population.build(People.concat(old + young)).sources(requester, 10, rng(), NOON, max_pool=40)
    assert set(found["content"].user_ids.tolist()) == set(range(60, 70))


def test_changes_are_seen_by_the_new_population_only() -> None:
    before = Population.build(People.concat([person(1), person(2), person(3)]))
    changed = before.upsert(People.concat([person(2, gender=2, like_rate_received=0.9), person(9)])).remove([3, 77])
    assert len(before) == 3
    assert len(changed) == 3
    assert changed.positions([1, 2, 3, 9]).tolist() == [0, 3, -1, 4]
    found = changed.sources(person(1), 10, rng(), NOON)
    assert set(found["content"].user_ids.tolist()) == {2, 9}
    assert found["popular_nearby"].user_ids[0] == 2
    rows = changed.rows(changed.positions([9, 1, 2]))
    assert rows.user_ids.tolist() == [9, 1, 2]
    assert rows.activity[2, ACTIVITY.index("like_rate_received")] == np.float32(0.9)
    compact = changed.remove([9]).compacted()
    assert compact.base.user_ids.tolist() == [1, 2]
    assert len(compact.tail) == 0
    assert set(before.sources(person(1), 10, rng(), NOON)["random"].user_ids.tolist()) == {2, 3}
    assert changed.upsert(People.empty()) is changed


def test_traits_follow_people_who_come_change_and_go() -> None:
    many = list(range(1, 12_001))
    cities: list[dict[str, Any]] = [
        {"city": "Ghent" if user_id % 2 else "Bruges", "smoker": user_id % 1000 == 7, "height": user_id % 10}
        for user_id in many
    ]
    population = Population.build(People.build(many), GivenTraits.of(many, cities))
    rare = Terms.of(person(20_000), NOON, replace(of_smokers(), numbers=(("height", NumberWish(low=8.0)),)))
    ghent, both = of_traits(city=["Ghent"], smoker=[True]), of_traits(city=["Bruges", "Ghent"], smoker=[True])
    assert showable(population, ghent) == list(range(7, 12_000, 1000))
    came = GivenTraits.of(
        [7, 40_000, 50_000], [{"city": "Bruges", "smoker": True, "height": 8.5}, cities[6], {"job": "baker"}]
    )
    changed = population.upsert(People.build([7, 40_000, 50_000]), came).remove([1007])
    gone = changed.remove([40_000])
    for moved in (changed, changed.compacted(), changed.upsert(People.build([3, 5]))):
        assert moved.texts == {"city", "job"}
        assert moved.flags == {"smoker"}
        assert showable(moved, ghent) == [*range(2007, 12_000, 1000), 40_000]
        assert showable(moved, both) == [7, *range(2007, 12_000, 1000), 40_000]
        assert showable(moved, rare) == [7]
        assert moved.sources(person(20_000), 50, rng(), NOON, terms=rare, at_least=50)["random"].user_ids == [7]
    for moved in (gone, gone.compacted()):
        assert showable(moved, ghent) == list(range(2007, 12_000, 1000))
    found = changed.sources(person(20_000), 50, rng(), NOON, terms=ghent, at_least=50)["random"]
    assert sorted(found.user_ids.tolist()) == showable(changed, ghent)


def of_traits(**wanted: list[str] | list[bool]) -> Terms:
    codes = (np.array([trait_code(name, value) for value in values]) for name, values in wanted.items())
    return Terms.of(person(20_000), NOON, Wishes(traits=tuple(codes)))


def of_smokers() -> Wishes:
    return Wishes(traits=(np.array([trait_code("smoker", True)]),))


def showable(population: Population, terms: Terms) -> list[int]:
    everywhere = np.flatnonzero(population.alive)
    return sorted(population.user_ids(everywhere[population.showable(terms, everywhere)]).tolist())


def test_excluded_people_come_from_no_source_and_do_not_use_up_places() -> None:
    population = Population.build(People.build(np.arange(1, 31))).upsert(person(40))
    terms = Terms.of(person(1), NOON, exclude=np.array([1000, 40, *range(2, 26)]))
    found = population.sources(person(1), 5, rng(), NOON, terms=terms)
    assert tuple(found) == SOURCES
    for result in found.values():
        assert set(result.user_ids.tolist()) <= set(range(26, 31))
        assert len(result.user_ids) == 5


def test_few_people_with_a_rare_attribute_are_all_found_among_many() -> None:
    people = People.build(np.arange(1, 12_001))
    attributes, profile = people.attributes.copy(), people.profile.copy()
    attributes[:, 3], attributes[::1500, 3] = 1.0, 7.0  # 1, 1501, 3001 ... 10501
    profile[1500, PROFILE.index("seeking")] = 2.0  # 1501 seeks somebody else
    population = Population.build(replace(people, attributes=attributes, profile=profile))
    population = population.remove([3001]).upsert(population.rows([0]))
    terms = Terms.of(person(20_000), NOON, Wishes(attributes=((3, NumberWish(low=6.5, among=(7.0, 8.0))),)))
    for result in population.sources(person(20_000), 50, rng(), NOON, terms=terms, at_least=50).values():
        assert set(result.user_ids.tolist()) == {1, 4501, 6001, 7501, 9001, 10501}
        assert (result.propensity == 1).all()


def test_nobody_is_found_in_an_empty_world() -> None:
    for requester in (person(1), person(1, latitude=1, longitude=1)):
        found = Population.build(People.empty()).sources(requester, 5, rng(), NOON)
        assert all(len(result.user_ids) == 0 for result in found.values())
        newcomer = Population.build(People.empty()).upsert(person(2))
        assert newcomer.sources(requester, 5, rng(), NOON)["content"].user_ids.tolist() == [2]


def test_a_pool_is_drawn_around_one_person() -> None:
    with pytest.raises(MalformedFeatures, match="one person"):
        Population.build(crowd(3)).nearby(crowd(2), rng())


def test_the_grid_costs_twelve_bytes_a_person() -> None:
    people = crowd(1000)
    grid = GeoGrid.build(column(people, "gender"), column(people, "latitude"), column(people, "longitude"))
    assert grid.keys.nbytes + grid.order.nbytes == 12 * 1000
    of_traits = 2 * NOBODY_HAS_ANY.starts.nbytes
    assert Population.build(people).nbytes == people.nbytes + 13 * 1000 + of_traits


@pytest.mark.parametrize("n", [0, 1, 64, 65, 2500])
def test_asking_in_steps_says_the_same_as_asking_pair_by_pair(n: int) -> None:
    people = crowd(2600, seed=9)
    candidates = people.take(np.arange(n))
    for position in range(0, 2600, 200):
        requester = people.take([position])
        each = [mutually_eligible(requester, candidates.take([row]), NOON)[0] for row in range(min(n, 120))]
        at_once = mutually_eligible(requester, candidates, NOON)
        assert at_once.shape == (n,)
        assert at_once[:120].tolist() == each
        np.testing.assert_array_equal(at_once, mutually_eligible(people.take(np.full(n, position)), candidates, NOON))


def needles(n: int, fit: int) -> People:
    """Return n people in one place, of whom so many, anywhere among them, are young enough for `young_only`."""
    people = People.build(np.arange(2, n + 2))
    people.profile[:, PROFILE.index("latitude")], people.profile[:, PROFILE.index("longitude")] = 50, 8
    people.profile[:, PROFILE.index("birth_day")] = 0
    people.profile[rng().choice(n, fit, replace=False), PROFILE.index("birth_day")] = 12_000
    return people


def test_an_answer_is_short_only_when_nobody_else_fits() -> None:
    people = needles(30_000, fit=7)
    young_only = person(1, latitude=50, longitude=8, age_max=30)
    fitting = people.user_ids[mutually_eligible(young_only, people, NOON)].tolist()
    newcomer = person(40_000, latitude=50, longitude=8, birth_day=12_000)
    population = Population.build(people).upsert(newcomer)
    for seed in range(5):
        found = population.sources(young_only, 30, np.random.default_rng(seed), NOON, max_pool=500, at_least=20)
        assert set(found["content"].user_ids.tolist()) == {*fitting, 40_000}
        assert (found["random"].propensity == 1).all()


def test_looking_on_ends_when_enough_are_found() -> None:
    people = needles(30_000, fit=90)
    young_only = person(1, latitude=50, longitude=8, age_max=30)
    found = Population.build(people).sources(young_only, 200, rng(), NOON, max_pool=500, at_least=20)["random"]
    assert 20 <= len(found.user_ids) < 90
    assert (found.propensity < 1).all()


def test_what_a_request_asks_for_is_asked_of_every_source() -> None:
    people = crowd(3000, seed=4)
    population, requester = Population.build(people), people.take([7])
    asked = people.profile[:1, PROFILE.index("interests_00") : PROFILE.index("interests_09") + 1].copy()
    asked[0, 0] = 255
    wishes = Wishes(age_min=25, age_max=45, max_distance_km=900.0, interests=asked[0])
    terms = Terms.of(requester, NOON, wishes)
    met = population.rows(np.flatnonzero(population.showable(terms, np.arange(len(people)))))
    ages = whole_years(column(people, "birth_day"), NOON)
    home = column(requester, "latitude"), column(requester, "longitude")
    near = haversine_km(*home, column(people, "latitude"), column(people, "longitude")) <= 900.0
    words = people.profile[:, PROFILE.index("interests_00") : PROFILE.index("interests_09") + 1].astype(np.uint32)
    shares = (words & asked.astype(np.uint32)).any(axis=1)
    wanted = mutually_eligible(requester, people, NOON) & (ages >= 25) & (ages <= 45) & near & shares
    assert met.user_ids.tolist() == people.user_ids[wanted].tolist()
    assert 0 < wanted.sum() < mutually_eligible(requester, people, NOON).sum()
    for found in population.sources(requester, 50, rng(), NOON, terms=terms).values():
        assert set(found.user_ids.tolist()) <= set(met.user_ids.tolist())


def test_the_best_come_first_and_ties_go_by_row() -> None:
    scores = rng().integers(0, 6, 200).astype(np.float32)
    whole = np.lexsort((np.arange(200), -scores))
    for n in (0, 1, 7, 199, 200, 500):
        assert best_first(scores, n).tolist() == whole[:n].tolist()
