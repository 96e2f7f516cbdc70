"""The code location: what is in it, what depends on what, and that loading it is light."""

import json
import subprocess
import sys

import pytest

from pipelines.definitions import defs
from pipelines.jobs import JOBS, SCHEDULES

EXPECTED = {
    "people": ("ingest", set()),
    "interactions": ("ingest", {"people"}),
    "features": ("features", {"people", "interactions"}),
    "online_features": ("features", {"features"}),
    "embeddings": ("retrieval", {"people", "interactions", "features"}),
    "candidate_index": ("retrieval", {"people", "interactions", "embeddings"}),
    "ranking_dataset": ("ranking", {"embeddings", "features"}),
    "ranker": ("ranking", {"ranking_dataset"}),
    "evaluation": ("evaluation", {"ranker", "candidate_index"}),
    "release_candidate": ("release", {"embeddings", "candidate_index", "ranker", "evaluation"}),
}


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


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        ("train_all", {"snapshots", *EXPECTED} - {"people", "interactions"}),
        ("train_ranker", {"ranking_dataset", "ranker", "evaluation", "release_candidate"}),
        ("rebuild_index", {"snapshots", "candidate_index", "release_candidate"}),
        ("materialize_features", {"snapshots", "features", "online_features"}),
        ("evaluate", {"evaluation"}),
    ],
)
def test_each_job_has_its_steps(job: str, steps: set[str]) -> None:
    assert {node.name for node in defs.resolve_job_def(job).nodes_in_topological_order} == steps


def test_every_job_is_listed_and_no_schedule_runs_by_itself() -> None:
    assert [job.name for job in JOBS] == [
        "train_all",
        "train_ranker",
        "rebuild_index",
        "materialize_features",
        "evaluate",
    ]
    assert {schedule.name: schedule.default_status.value for schedule in SCHEDULES} == {
        "nightly_rebuild_index": "STOPPED",
        "frequent_materialize_features": "STOPPED",
    }


def test_the_snapshot_checks_block_what_comes_after() -> None:
    checks = {
        key.name: defs.resolve_asset_graph().get(key).blocking for key in defs.resolve_asset_graph().asset_check_keys
    }
    assert checks == {
        "people_expectations": True,
        "interactions_expectations": True,
        "interactions_are_live": False,
    }


def test_loading_the_code_location_imports_nothing_heavy_and_touches_no_server() -> None:
    heavy = ["mlflow", "feast", "xgboost", "great_expectations", "implicit", "matplotlib", "faiss", "pandas", "pyarrow"]
    script = (
        "import socket, sys, json\n"
        "def refuse(*a, **k): raise AssertionError('a server was touched')\n"
        "socket.socket.connect = refuse\n"
        "import pipelines.definitions\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
