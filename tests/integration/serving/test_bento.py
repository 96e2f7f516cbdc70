"""`bentoml build` packs the serving app, and `bentoml serve` starts what it packed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from infra.embedded.ports import free_port
from infra.endpoints import Endpoints
from tests.waiting import until

ROOT = Path(__file__).parents[3]
CODE = {"feature_repo", "infra", "registry", "serving"}
BENTOML = [sys.executable, "-m", "bentoml"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="module")
def bento(home: Path) -> Path:
    done = subprocess.run(
        [*BENTOML, "build", "--version", "test", "--output", "tag"],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "__tag__:duet:test", done.stderr
    return home / "bentos" / "duet" / "test"


def environment(home: Path, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DUET_")}
    return {
        **ours,
        "BENTOML_HOME": str(home),
        "DUET_ENVIRONMENT": "test",
        "DUET_DATA_DIR": str(home / "duet"),
        **more,
    }


def take_over_compiled_loops(src: Path) -> None:
    """Copy them: they are kept beside the code, go by its times, and take a minute to be compiled anew."""
    for package in CODE:
        for source in (ROOT / package).rglob("*.py"):
            packed = src / source.relative_to(ROOT)
            if packed.exists():
                shutil.copystat(source, packed)
        for compiled in (ROOT / package).rglob("__pycache__/*.nb[ic]"):
            kept = src / compiled.relative_to(ROOT)
            kept.parent.mkdir(exist_ok=True)
            shutil.copy2(compiled, kept)


def files(folder: Path) -> set[str]:
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def test_a_bento_has_the_code_of_serving_and_nothing_else_of_the_folder(bento: Path) -> None:
    given = {f"{package}/{name}" for package in CODE for name in files(ROOT / package)}
    clients = {name for name in given if name.startswith("serving/clients/")}
    assert clients
    assert files(bento / "src") == (given - clients) | {
        "LICENSE",
        "README.md",
        "bentofile.yaml",
        "pyproject.toml",
    }


def test_a_bento_installs_what_is_locked_with_its_hashes(bento: Path) -> None:
    installed = (bento / "env" / "python" / "requirements.txt").read_text()
    locked = (ROOT / "infra" / "docker" / "serving.lock").read_text()
    for pattern in (r"(?m)^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\s;\\]+", "sha256:[0-9a-f]{64}"):
        assert set(re.findall(pattern, installed)) == set(re.findall(pattern, locked))


def test_a_bento_carries_no_model(bento: Path) -> None:
    described = yaml.safe_load((bento / "bento.yaml").read_text())
    assert described["models"] == []
    assert described["image"]["python_version"] == "3.11"


@pytest.fixture(scope="module")
def served(bento: Path, home: Path, endpoints: Endpoints) -> Iterator[httpx.Client]:
    take_over_compiled_loops(bento / "src")
    port, log = free_port(), home / "serving.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # From a folder without code: all of it comes from the Bento.
            [*BENTOML, "serve", "duet:latest", "--host", "127.0.0.1", "--port", str(port)],
            env=environment(home, DUET_SERVING__PORT=str(port), **endpoints.environment()),
            cwd=home,
            stdout=output,
            stderr=output,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:

        def is_alive() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.get("/health/live").status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(is_alive, 120, log.read_text)
            yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_a_bento_is_served_with_the_document_that_it_carries(bento: Path, served: httpx.Client) -> None:
    carried = yaml.safe_load((bento / "apis" / "openapi.yaml").read_text())
    assert served.get("/docs.json").json() == carried
    assert {*carried["paths"]} > {"/v1/recommendations", "/v1/interactions"}
