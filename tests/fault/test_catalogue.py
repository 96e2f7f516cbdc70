"""Each fault that we promise to survive, and the tests that prove it: a test that is renamed or lost is missed here."""

import ast
from pathlib import Path

import pytest

from tests.fault.proxy import HARD, TRIED, Mode

TESTS = Path(__file__).parents[1]
PROVED_BY = {
    "1 eligibility is down, slow or stale at every level": [
        (
            "fault/test_dependency_faults.py::"
            "test_without_postgres_answers_are_empty_in_time_and_say_why_and_it_recovers_alone"
        ),
        (
            "unit/serving/test_recommend_path.py::"
            "test_decided_separated_hidden_and_ineligible_people_are_never_shown_at_any_level"
        ),
        "unit/serving/test_recommend_path.py::test_when_the_last_check_fails_nobody_is_shown",
    ],
    "2 and 3 Redis is a black hole, down, refuses, resets, answers half or slowly": [
        (
            "fault/test_dependency_faults.py::"
            "test_without_redis_answers_stay_at_level_one_and_name_the_features_and_it_recovers_alone"
        ),
        "fault/test_dependency_faults.py::test_a_network_that_is_a_little_slow_costs_at_most_quality",
        "fault/test_dependency_faults.py::test_a_network_that_comes_and_goes_does_not_confuse_anybody",
    ],
    "4 embedding and index of different versions": [
        "unit/registry/test_release_loading.py::test_an_index_of_another_embedding_is_refused",
        "unit/registry/test_release_loading.py::test_an_index_that_lies_about_its_embedding_is_caught_by_its_factors",
    ],
    "5 truncated or flipped model, index, id map, manifest": [
        "unit/registry/test_ranker_model.py::test_a_truncated_model_is_refused_before_xgboost_sees_it",
        "unit/registry/test_release_loading.py::test_any_damaged_file_refuses_the_whole_release",
        "unit/serving/test_release_watcher.py::test_corrupt_bytes_are_refused_and_the_old_release_stays",
        (
            "integration/registry/test_release_trial.py::"
            "test_a_model_that_crashes_its_reader_ends_the_child_and_is_refused"
        ),
    ],
    "6 SIGKILL while building, uploading, promoting, swapping": [
        (
            "integration/pipelines/test_killed_training.py::"
            "test_a_killed_run_registers_nothing_by_half_and_can_be_repeated"
        ),
        (
            "unit/registry/test_artifact_files.py::"
            "test_a_process_killed_while_writing_leaves_no_artefact_and_a_second_run_completes"
        ),
        (
            "integration/serving/test_snapshot_build.py::"
            "test_a_builder_that_is_killed_or_left_alone_frees_its_right_and_leaves_nothing_to_read"
        ),
        "property/test_registry_promotion_machine.py::Promotions",
    ],
    "7 another feature schema in the model than in the store": [
        "unit/registry/test_release_loading.py::test_a_ranker_of_another_schema_is_refused",
        "unit/registry/test_ranker_model.py::test_columns_are_gathered_by_name_whatever_the_offered_order",
        "unit/registry/test_ranker_model.py::test_a_feature_that_is_not_offered_refuses_the_ranker",
        "unit/serving/test_release_watcher.py::test_another_feature_schema_is_refused",
    ],
    "8 requests cancelled in the middle of reads": [
        (
            "fault/test_dependency_faults.py::"
            "test_clients_that_hang_up_mid_read_never_cause_an_answer_that_belongs_to_another_person"
        ),
        "fault/test_dependency_faults.py::test_afterwards_the_pool_has_its_size_again_and_no_connection_leaks",
    ],
    "9 three to ten times more than can be done": [
        (
            "fault/test_overload_faults.py::"
            "test_an_overload_leaves_the_goodput_refuses_the_rest_fast_and_ends_within_seconds"
        ),
        "fault/test_overload_faults.py::test_probes_are_answered_in_an_overload",
    ],
    "10 NaN, infinite, zero or huge vectors": [
        "unit/registry/test_embedding_factors.py::test_factors_that_are_not_finite_are_not_saved",
        "unit/registry/test_item_index_search.py::test_a_vector_that_is_not_a_factor_stops_the_build",
        "unit/registry/test_item_index_search.py::test_a_query_that_is_not_a_factor_is_refused",
        "unit/serving/test_recommend_path.py::test_a_failing_part_of_the_release_degrades_to_profiles",
    ],
    "11 a pickle in place of a model": [
        "unit/registry/test_artifact_files.py::test_pickled_objects_are_never_loaded",
        "api/test_recommendations_api.py::test_every_error_has_one_shape",
    ],
    "12 promotions and rollbacks that race": [
        "property/test_registry_promotion_machine.py::Promotions",
        (
            "integration/registry/test_promotion_audit.py::"
            "test_the_lock_is_held_against_another_connection_and_ends_with_the_transaction"
        ),
    ],
    "13 MLflow is away at the start, in the watch loop, in a promotion": [
        "fault/test_mlflow_faults.py::test_a_service_that_starts_without_mlflow_serves_the_last_good_release",
        "fault/test_mlflow_faults.py::test_the_watch_loop_without_mlflow_is_not_felt_by_anybody",
        "fault/test_mlflow_faults.py::test_a_promotion_without_mlflow_is_refused_in_a_sentence_and_moves_nothing",
        (
            "fault/test_mlflow_faults.py::"
            "test_a_release_whose_download_breaks_off_is_not_served_and_is_fetched_when_the_network_heals"
        ),
    ],
    "14 the primary is killed, its pool used up, a lock held for long": [
        (
            "fault/test_postgres_faults.py::"
            "test_killed_sessions_are_replaced_and_nothing_acknowledged_is_lost_or_written_twice"
        ),
        "fault/test_postgres_faults.py::test_a_long_lock_uses_up_the_pool_and_answers_are_empty_in_time",
        "fault/test_postgres_faults.py::test_a_statement_that_was_given_up_is_ended_at_the_server_too",
        "e2e/test_first_evening.py::test_killed_stores_lose_no_acknowledged_interaction_and_serving_recovers",
    ],
    "15 somebody unknown, deleted a second ago, or without features": [
        "fault/test_postgres_faults.py::test_somebody_unknown_is_told_so_and_a_newcomer_without_features_is_served",
        "fault/test_postgres_faults.py::test_somebody_deleted_a_second_ago_never_comes_back",
        "fault/test_two_workers.py::test_a_deleted_profile_is_gone_from_everybodys_next_answer_on_all_workers",
    ],
    "16 an empty index, fewer people than asked for, nobody left": [
        "unit/registry/test_item_index_search.py::test_an_empty_index_finds_nobody",
        "unit/registry/test_item_index_search.py::test_asking_for_more_than_there_is_gives_everybody_once",
        "unit/registry/test_release_loading.py::test_an_index_of_another_width_or_of_nobody_is_refused",
        "unit/serving/test_recommend_path.py::test_somebody_whom_nobody_suits_gets_a_short_answer_of_the_best_level",
    ],
    "17 a herd of a thousand when an answer expires": [
        (
            "unit/serving/test_answer_cache_herds.py::"
            "test_a_herd_of_a_thousand_has_its_answer_made_once_and_checked_for_each"
        ),
    ],
    "18 hostile input": [
        "api/test_api_schema.py::test_the_service_keeps_to_its_document",
        "api/test_recommendations_api.py::test_every_error_has_one_shape",
        "unit/serving/test_border.py::test_malformed_and_invalid_bodies_are_told_apart",
    ],
    "37 stopped under load": [
        (
            "integration/serving/test_graceful_shutdown.py::"
            "test_every_accepted_request_is_answered_while_the_service_is_stopped_and_its_probe_says_so"
        ),
    ],
    "40 python -O": [
        "fault/test_optimised_python.py::test_corrupt_mismatched_and_senseless_is_refused_with_and_without_asserts",
    ],
}


@pytest.mark.parametrize("fault", PROVED_BY)
def test_every_fault_has_the_tests_that_prove_its_end(fault: str) -> None:
    missing = [node for node in PROVED_BY[fault] if not exists(*node.split("::"))]
    assert not missing, f"no such tests: {missing}"


def test_every_server_and_every_kind_of_fault_is_tried_without_the_long_tests() -> None:
    assert {mode for modes in TRIED.values() for mode in modes} == HARD.keys() == set(Mode) - {Mode.PASS}
    assert all(len(modes) >= 2 for modes in TRIED.values())


def exists(file: str, name: str) -> bool:
    path = TESTS / file
    if not path.is_file():
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name for node in tree.body)
