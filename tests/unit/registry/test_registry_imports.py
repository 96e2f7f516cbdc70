"""What serving pays for importing the registry: neither mlflow nor anything else it does not use."""

import subprocess
import sys

SERVED = (
    "registry.release",
    "registry.scoring.retrieval",
    "registry.mlflow.rest",
    "registry.promotion.release_cache",
    "registry.promotion.promotion",
)
HEAVY = ("mlflow", "pandas", "feast", "dagster", "implicit", "sklearn", "xgboost", "matplotlib")


def imported_by(*modules: str) -> set[str]:
    program = f"import sys, {', '.join(modules)}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_reading_releases_imports_nothing_heavy() -> None:
    assert imported_by(*SERVED) == set()


def test_the_commands_import_nothing_heavy() -> None:
    assert imported_by("registry.promotion.commands") == set()
