"""The files that the tests of the architecture look at: what git tracks, or what lies here without git."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("infra", "feature_repo", "registry", "pipelines", "serving")
IGNORED = {".git", ".venv", ".duet", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", "storage"}


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project, new ones that git does not ignore among them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if IGNORED.isdisjoint(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in found if path.is_file()))


def modules(*packages: str) -> list[Path]:
    """Every Python file of the given top-level folders; of our packages without an argument."""
    wanted = packages or PACKAGES
    return [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in wanted]


def name_of(path: Path) -> str:
    """The path as a person writes it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(), filename=str(path))


@cache
def text_of(path: Path) -> str:
    """The text of a file; empty for one that is not text."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""
