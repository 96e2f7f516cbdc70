import numpy as np

from feature_repo.population.people import People
from feature_repo.population.population import Population
from registry.scoring.candidates import places_of_others, pooled
from registry.scoring.retrieval import CandidateList, merge_candidates

POPULATION = Population.build(People.build(np.arange(1, 21)))


def found(*ids: int) -> CandidateList:
    return CandidateList(np.array(ids, dtype=np.int64), np.linspace(1, 0, len(ids), dtype=np.float32))


def test_a_pool_drops_the_last_of_the_index_and_keeps_what_others_found() -> None:
    pool = pooled(POPULATION, merge_candidates({"retrieval": found(1, 2, 3, 4, 5, 6), "random": found(6, 9)}), 5)
    assert pool.people.user_ids.tolist() == [1, 2, 3, 6, 9]
    assert pool.found.found_by(np.array([3, 4])) == [("retrieval", "random"), ("random",)]


def test_a_pool_never_exceeds_its_bound_however_much_the_others_find() -> None:
    pool = pooled(
        POPULATION, merge_candidates({"retrieval": found(1), "content": found(2, 3, 4), "random": found(5, 6, 7)}), 4
    )
    assert len(pool) == 4


def test_a_pool_is_full_although_sources_find_the_same_people() -> None:
    lists = {"retrieval": found(1, 2), "content": found(3, 4, 5, 6), "random": found(3, 5, 7, 8, 9, 10)}
    pool = pooled(POPULATION, merge_candidates(lists), 8)
    assert pool.people.user_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_whoever_is_drawn_for_fewer_places_had_less_of_a_chance() -> None:
    drawn = CandidateList(np.arange(3, 11), np.zeros(8, np.float32), np.full(8, 0.5, np.float32))
    pool = pooled(POPULATION, merge_candidates({"retrieval": found(1, 2), "random": drawn}), 6)
    assert pool.people.user_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert pool.found.propensity[2:, 1].tolist() == [0.25] * 4


def test_without_a_bound_everybody_is_kept() -> None:
    assert len(pooled(POPULATION, merge_candidates({"content": found(2, 3, 4), "random": found(5, 6, 7)}))) == 6


def test_the_other_sources_fill_what_the_index_could_not() -> None:
    assert places_of_others(300, 300) == 25
    assert places_of_others(300, 60) == 240
    assert places_of_others(3, 3) == 1
