import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import ROOT, modules, name_of, tree_of

DAGSTER_MODULES = {"assets", "checks", "jobs", "definitions", "resources", "schedules", "storage", "commands"}
# Beside the agreed names: the Launchpad's schema, inline plots and tables, closing orphaned runs, `duet train`.
DAGSTER_MODULES |= {"launchpad", "presentation", "orphans", "running", "termination", "sensors", "inputs"}
# What runs by itself: when, under which conditions, how old results may become, and how a step promotes.
DAGSTER_MODULES |= {"clocked", "conditions", "freshness", "promotion"}
# How results pass between steps, in which processes these work, and what Dagster marks as private.
DAGSTER_MODULES |= {"io_manager", "executor", "dagster_private"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every imported module and its line, those inside functions among them."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, node.lineno


def importers(*libraries: str) -> set[str]:
    return {
        name_of(path) for path in modules() for module, _ in imports(path) if module.partition(".")[0] in set(libraries)
    }


def test_the_import_contracts_hold() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([script, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dagster_stays_at_the_edge() -> None:
    inside = [name for name in importers("dagster", "dagster_postgres") if Path(name).stem not in DAGSTER_MODULES]
    assert not inside
    assert all(name.startswith("pipelines/") for name in importers("dagster", "dagster_postgres"))


def test_mlflow_bentoml_faiss_and_feast_stay_behind_their_modules() -> None:
    # The last is MLflow's own server inside our checks.
    assert importers("mlflow") <= {
        "registry/mlflow/logged.py",
        "registry/mlflow/flavours.py",
        "infra/web/mlflow_app.py",
    }
    assert importers("bentoml") <= {"serving/service.py", "serving/ranker_service.py"}
    assert all(name.startswith("registry/") for name in importers("faiss"))
    assert all(name.startswith("feature_repo/") for name in importers("feast"))


def test_what_feast_marks_as_private_is_used_in_one_module() -> None:
    theirs = {"feast", "stock", "offline_utils"}
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules("feature_repo")
        if path.name != "feast_private.py"
        for node in ast.walk(tree_of(path))
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "feast"
            and any(alias.name.startswith("_") for alias in node.names)
        )
        or (isinstance(node, ast.Attribute) and node.attr == "_get_provider")
        or (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and isinstance(node.value, ast.Name)
            and node.value.id in theirs
        )
    ]
    assert not found


def test_what_dagster_marks_as_private_is_used_in_one_module() -> None:
    found = [
        f"{name_of(path)}:{line} imports {module}"
        for path in modules()
        if path.name != "dagster_private.py"
        for module, line in imports(path)
        if module.startswith("dagster") and "._" in module
    ]
    assert not found


def test_measures_lie_below_every_other_folder_of_the_pipelines() -> None:
    ours = ("feature_repo", "registry", "pipelines", "serving")
    above = [
        f"{name_of(path)}:{line} imports {module}"
        for path in modules("pipelines")
        if name_of(path).startswith("pipelines/metrics/")
        for module, line in imports(path)
        if module.partition(".")[0] in ours and not module.startswith("pipelines.metrics")
    ]
    assert not above


def test_nothing_that_executes_when_it_is_read_is_imported() -> None:
    assert not importers(*UNSAFE)


# Reads of the environment, the wall clock and the global random state belong to infra alone.
BANNED = {
    "os.environ": "settings",
    "os.getenv": "settings",
    "time.time": "infra.clock",
    "datetime.now": "infra.clock",
    "datetime.utcnow": "infra.clock",
    "datetime.today": "infra.clock",
    "date.today": "infra.clock",
    "random.random": "a seeded generator",
    "np.random.seed": "a seeded generator",
    "np.random.rand": "a seeded generator",
}


def test_environment_wall_clock_and_global_randomness_are_read_only_in_infra() -> None:
    reads = [
        f"{name_of(path)}:{node.lineno} reads {what}: use {instead}"
        for path in modules("feature_repo", "registry", "pipelines", "serving")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
        for what, instead in BANNED.items()
        if ast.unparse(node) == what or ast.unparse(node).endswith(f"datetime.{what}")
    ]
    assert not reads


def test_tables_for_people_are_made_by_one_module() -> None:
    making = {
        name_of(path)
        for path in modules()
        if "rich.table" in {module for module, _ in imports(path)}
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] == "Table"
    }
    # `duet status` folds no address: one that is cut in two cannot be copied.
    assert making == {"infra/cli/console.py", "infra/cli/platform.py"}


def test_every_package_is_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in {p.relative_to(ROOT).parts[0] for p in modules()})


# The steps of a two-stage list. Whoever takes them one by one outside `registry/scoring` has made a second path.
STEPS = {"combine", "scored_by", "score_candidates", "merge_candidates", "pair_context", "retrieve"}
OWN_STEPS = {
    # What the speed-up is measured against: a tutorial's path, which must not share ours.
    "pipelines/bench/naive.py": {"combine"},
    # Levels 2 and 3 merge one or a few lists, and rank by no release.
    "serving/recommend/levels.py": {"merge_candidates"},
    # Compiles what the first request would wait for; ranks nothing.
    "serving/warm_up.py": {"merge_candidates"},
    # Level 1 takes the same steps as `recommend`, with pauses between them; a test compares the lists person by person.
    "serving/recommend/stages/ranking.py": {"pair_context", "scored_by"},
    # Many policies are compared over the predictions of one pool, which are made once.
    "pipelines/ranking/lists.py": {"scored_by"},
    # Decisions on pairs that nobody listed are rows too; a test compares their columns with the served ones.
    "pipelines/ranking/rows.py": {"pair_context"},
}


def test_no_second_two_stage_path_grows_beside_the_one_that_serves() -> None:
    taken: dict[str, set[str]] = {}
    for path in modules("serving", "pipelines", "registry"):
        name = name_of(path)
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call) or name.startswith("registry/scoring/"):
                continue
            # A method of another thing may bear the same name: `datetime.combine`.
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            if called in STEPS:
                taken.setdefault(name, set()).add(called)
    assert taken == OWN_STEPS
