"""Say which code made an artefact: the package's version and, in a checkout, the commit."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def code_version(root: Path = ROOT) -> str:
    """Return `0.1.0+a1b2c3d4e5f6` in a checkout and `0.1.0` elsewhere; git itself is not needed."""
    commit = _commit(root / ".git")
    return f"{version('duet')}+{commit[:12]}" if commit else version("duet")


def _commit(git: Path) -> str:
    head = git / "HEAD"
    if not head.is_file():
        return ""
    text = head.read_text().strip()
    if not text.startswith("ref: "):
        return text
    name = text.removeprefix("ref: ")
    if (git / name).is_file():
        return (git / name).read_text().strip()
    packed = git / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
