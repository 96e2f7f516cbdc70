"""Fault 40, and 5, 7 and 10 with it: under `python -O`, which drops every `assert`, the same is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def refusals(folder: Path, *flags: str) -> dict[str, Any]:
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONOPTIMIZE", "PYTHONPATH"}}
    done = subprocess.run(
        [sys.executable, *flags, "-m", "tests.fault.refusals", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_corrupt_mismatched_and_senseless_is_refused_with_and_without_asserts(tmp_path: Path) -> None:
    usual, optimised = refusals(tmp_path / "usual"), refusals(tmp_path / "optimised", "-O")
    assert (usual["optimised"], optimised["optimised"]) == (False, True)
    assert len(usual["found"]) > 80
    ours = ("registry.errors.", "infra.errors.")
    answered = {case: said for case, said in usual["found"].items() if not said.startswith(ours)}
    assert not answered, "not refused by an error of ours"
    assert optimised["found"] == usual["found"]
