"""The code location: what is in it, what depends on what, and that loading it is light."""

import json
import re
import subprocess
import sys

import pytest

from pipelines.definitions import JOBS, defs
from pipelines.release.policy import load_policy
from tests.architecture.sources import modules, name_of

EXPECTED = {
    "people": ("ingest", set()),
    "interactions": ("ingest", {"people"}),
    "features": ("features", {"people", "interactions"}),
    "online_features": ("features", {"features"}),
    "changed_features": ("features", {"online_features"}),
    "embeddings": ("retrieval", {"people", "interactions", "features"}),
    "candidate_index": ("retrieval", {"people", "interactions", "embeddings"}),
    "ranking_dataset": ("ranking", {"interactions", "embeddings", "features"}),
    "ranker": ("ranking", {"interactions", "ranking_dataset"}),
    "evaluation": ("evaluation", {"interactions", "ranker", "embeddings", "candidate_index"}),
    "release_candidate": ("release", {"interactions", "embeddings", "candidate_index", "ranker", "evaluation"}),
    "promoted_release": ("release", {"release_candidate"}),
    "drift": ("release", {"interactions", "features", "embeddings", "candidate_index", "promoted_release"}),
    "experiment_report": ("experiments", set()),
    "hyperparameter_search": ("search", {"interactions", "ranking_dataset"}),
    "daily_activity": ("history", set()),
    "daily_totals": ("history", set()),
    "erasures": ("history", set()),
    "release_history": ("release", set()),
}
ASIDE = {
    "drift",
    "changed_features",
    "experiment_report",
    "hyperparameter_search",
    "daily_activity",
    "daily_totals",
    "erasures",
    "release_history",
}
TRAINING = {"snapshots", *EXPECTED} - {"people", "interactions"} - ASIDE
# Everything that runs by itself is on: what keeps a machine from training unasked is tested with the conditions.
SCHEDULED = {
    "daily_measure_activity": ("40 0 * * *", "measure_activity", "RUNNING"),
    "nightly_materialize_features": ("30 2 * * *", "materialize_features", "RUNNING"),
    "nightly_rebuild_index": ("30 3 * * *", "rebuild_index", "RUNNING"),
    "nightly_fold_history": ("0 4 * * *", "fold_history", "RUNNING"),
    "nightly_measure_drift": ("45 4 * * *", "measure_drift", "RUNNING"),
    "weekly_retrain": ("0 5 * * 0", "train_all", "RUNNING"),
}
SENSORS = {
    "alert_on_failure": ([], "RUNNING"),
    "frequent_materialize_features": (["materialize_changes", "materialize_features"], "RUNNING"),
    "retrain_on_drift": (["train_all"], "RUNNING"),
    "guard": ([], "RUNNING"),
    "observe_stages": ([], "RUNNING"),
    "erase_people_soon": (["erase_people"], "RUNNING"),
}
FRESH = {"online_features": (26, 50), "candidate_index": (26, 50), "release_candidate": (8 * 24, 15 * 24)}


def test_the_asset_graph_is_the_designed_one() -> None:
    graph = defs.resolve_asset_graph()
    found = {
        key.to_user_string(): (
            graph.get(key).group_name,
            {parent.to_user_string() for parent in graph.get(key).parent_keys},
        )
        for key in graph.get_all_asset_keys()
    }
    assert found == EXPECTED


def test_only_commands_and_notebooks_ask_for_results_by_name_and_steps_are_given_theirs() -> None:
    asks = re.compile(r"(results|ResultStore\.of\(\w+\))\.require\(")
    asking = {name_of(path) for path in modules("pipelines") if asks.search(path.read_text())}
    assert asking == {
        *("pipelines/io_manager.py", "pipelines/commands.py", "pipelines/experiments/commands.py"),
        *("pipelines/ranking/own.py", "pipelines/ranking/frame.py"),
    }


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        ("train_all", TRAINING),
        ("train_ranker", {"ranking_dataset", "ranker", "evaluation", "release_candidate", "promoted_release"}),
        ("rebuild_index", {"snapshots", "candidate_index", "release_candidate", "promoted_release"}),
        ("materialize_features", {"snapshots", "features", "online_features"}),
        ("materialize_changes", {"changed_features"}),
        ("evaluate", {"evaluation"}),
        ("search_hyperparameters", {"hyperparameter_search"}),
        ("measure_activity", {"daily_activity"}),
        ("fold_history", {"daily_totals"}),
        ("measure_drift", {"drift"}),
        ("read_out_experiment", {"experiment_report"}),
        ("erase_people", {"erasures"}),
    ],
)
def test_each_job_has_its_steps(job: str, steps: set[str]) -> None:
    assert {node.name for node in defs.resolve_job_def(job).nodes_in_topological_order} == steps


def test_every_job_is_listed() -> None:
    assert [job.name for job in JOBS] == [
        "train_all",
        "train_ranker",
        "rebuild_index",
        "materialize_features",
        "materialize_changes",
        "evaluate",
        "search_hyperparameters",
        "measure_activity",
        "fold_history",
        "measure_drift",
        "read_out_experiment",
        "erase_people",
    ]


def test_what_runs_by_itself_is_what_was_designed() -> None:
    repository = defs.get_repository_def()
    schedules = {
        schedule.name: (schedule.cron_schedule, schedule.job_name, schedule.default_status.value)
        for schedule in repository.schedule_defs
    }
    assert schedules == SCHEDULED
    assert {schedule.execution_timezone for schedule in repository.schedule_defs} == {"UTC"}
    sensors = {
        sensor.name: ([target.job_name for target in sensor.targets], sensor.default_status.value)
        for sensor in repository.sensor_defs
    }
    assert sensors == SENSORS
    assert all(each.description for each in [*repository.schedule_defs, *repository.sensor_defs])


def test_old_results_are_shown_as_old() -> None:
    graph = defs.resolve_asset_graph()
    found = {}
    for key in graph.get_all_asset_keys():
        policy = graph.get(key).freshness_policy
        if policy is not None:
            windows = (policy.warn_window.to_timedelta(), policy.fail_window.to_timedelta())
            found[key.to_user_string()] = tuple(window.total_seconds() / 3600 for window in windows)
    assert found == FRESH


def test_the_checks_of_snapshots_block_what_comes_after_and_gates_do_not() -> None:
    checks = {
        key.name: defs.resolve_asset_graph().get(key).blocking for key in defs.resolve_asset_graph().asset_check_keys
    }
    assert checks == {
        "people_expectations": True,
        "interactions_expectations": True,
        "interactions_are_live": False,
        "production_is_coherent": False,
        **dict.fromkeys([gate.name for gate in load_policy().gates], False),
    }


def test_loading_the_code_location_imports_nothing_heavy_and_touches_no_server() -> None:
    heavy = [
        "mlflow",
        "feast",
        "optuna",
        "sklearn",
        "xgboost",
        "great_expectations",
        "implicit",
        "matplotlib",
        "faiss",
        "pandas",
        "pyarrow",
    ]
    script = (
        "import socket, sys, json\n"
        "def refuse(*a, **k): raise AssertionError('a server was touched')\n"
        "socket.socket.connect = refuse\n"
        "import pipelines.definitions\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
