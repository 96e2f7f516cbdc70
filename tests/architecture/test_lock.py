import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.architecture.sources import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
# Without a floor a resolver silently picks years-old releases of these.
NEED_FLOORS = {"bentoml", "dagster", "feast", "mlflow"}


def pins() -> list[tuple[str, str, str]]:
    """Name, version and the condition under which a pin holds: newer Pythons may have pins of their own."""
    return re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(?:;([^\\\n]*))?", LOCK, re.MULTILINE)


def locked() -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for name, version, _ in pins():
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


def wanted() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [*PROJECT["project"]["dependencies"], *itertools.chain(*extras), *PROJECT["dependency-groups"]["dev"]]
    return [Requirement(line) for line in lines]


def test_every_direct_dependency_is_locked_at_a_version_that_is_allowed() -> None:
    found = locked()
    stale = [
        f"{need} but the lock has {found.get(canonicalize_name(need.name))}"
        for need in wanted()
        if canonicalize_name(need.name) not in found
        or not all(
            need.specifier.contains(version, prereleases=True) for version in found[canonicalize_name(need.name)]
        )
    ]
    assert not stale, "run `make lock`"


def test_the_four_that_resolvers_get_wrong_have_floors() -> None:
    floors = {need.name: str(need.specifier) for need in wanted() if need.name in NEED_FLOORS}
    assert floors.keys() == NEED_FLOORS
    assert all(floor.startswith(">=") for floor in floors.values())


def test_python_is_asked_for_where_every_package_has_a_wheel() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"


def test_every_locked_package_is_pinned_exactly_and_carries_hashes() -> None:
    entries = [part for part in re.split(r"\n(?=[A-Za-z0-9])", LOCK) if re.match(r"[A-Za-z0-9]", part)]
    assert len(entries) == len({(canonicalize_name(name), condition.strip()) for name, _, condition in pins()})
    assert not [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry]


def test_the_lock_names_no_place_to_download_from() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^-", LOCK, re.MULTILINE)


def test_the_installer_is_pinned_with_hashes_too() -> None:
    bootstrap = (ROOT / ".ci" / "bootstrap.lock").read_text()
    assert re.search(r"^uv==[0-9.]+ \\$", bootstrap, re.MULTILINE)
    assert "--hash=sha256:" in bootstrap
    assert "://" not in bootstrap


def test_the_installed_commands_are_those_of_the_project() -> None:
    declared = PROJECT["project"]["entry-points"]["duet.commands"]
    assert {entry.name: entry.value for entry in entry_points(group="duet.commands")} == declared


@pytest.mark.parametrize(
    ("version", "answer"), [("3, 10, 9", "refused"), ("3, 11, 0", "taken"), ("3, 13, 0", "refused")]
)
def test_make_refuses_a_python_for_which_packages_have_no_wheels(tmp_path: Path, version: str, answer: str) -> None:
    python = tmp_path / "python"
    disguise = f"import sys; sys.version_info = ({version}); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exit 7\nexec {sys.executable} -c "{disguise}" "$2"\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml", ".ci/bootstrap.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    words = ["make", f"PYTHON={python}", "install"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = "is not Python 3.11 or 3.12, for which all packages have wheels; install one of them" in ended.stderr
    assert said == (answer == "refused")
    assert ended.returncode != 0  # the disguise makes no environment
