"""Builds the clients that apps use, both from the OpenAPI document: `make clients`.

The Python one by `openapi-python-client` with the templates in `python/`, as a wheel; the TypeScript one by
`openapi-typescript` and `openapi-fetch` with the sources in `typescript/`, as an npm package. What is generated is not
kept in the repository: it follows the API by itself.
"""

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Final

from serving.api.openapi import document

HERE: Final = Path(__file__).parent
NO_NODE: Final = "No TypeScript client was made: it needs `node` and `npm`, which Node.js 20 or newer brings."
_SCRIPTS: Final = Path(sysconfig.get_path("scripts"))


def write_document(folder: Path) -> Path:
    """Write the OpenAPI document into a folder, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "openapi.json"
    path.write_text(json.dumps(document(), indent=1), encoding="utf-8")
    return path


def generate_python(folder: Path) -> Path:
    """Generate the sources of the Python client below a folder, and return where they are."""
    made = folder / "python"
    shutil.rmtree(made, ignore_errors=True)
    openapi = write_document(folder)
    config = folder / "python.yaml"
    text = (HERE / "python" / "config.yaml").read_text(encoding="utf-8")
    config.write_text(f"{text}package_version_override: {version('duet')}\n", encoding="utf-8")
    asked = ["--path", openapi, "--config", config, "--custom-template-path", HERE / "python" / "templates"]
    wanted = ["--meta", "uv", "--output-path", made, "--fail-on-warning"]
    _run(_SCRIPTS / "openapi-python-client", "generate", *asked, *wanted, at=folder)
    for check in (("check", "--fix", "--quiet"), ("format", "--quiet")):
        # `build/` is none of git's files, which ruff would pass over.
        _run(_SCRIPTS / "ruff", *check, "--no-cache", "--no-respect-gitignore", ".", at=made)
    return made


def build_python(folder: Path) -> Path:
    """Build the wheel of the Python client below a folder, and return its path."""
    made = generate_python(folder)
    words = ["build", "--wheel", "--quiet", "--offline", "--no-build-isolation", "--out-dir", folder]
    _run(_SCRIPTS / "uv", *words, "--python", sys.executable, ".", at=made)
    return next(folder.glob(f"duet_client-{version('duet')}-*.whl"))


def has_node() -> bool:
    """Tell whether this machine can build the TypeScript client."""
    return all(shutil.which(name) is not None for name in ("node", "npm"))


def compile_typescript(folder: Path) -> Path:
    """Generate and compile the TypeScript client below a folder, and return where it is."""
    made = folder / "typescript"
    shutil.copytree(HERE / "typescript", made, dirs_exist_ok=True)
    openapi = write_document(folder)
    _run("npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", at=made)
    _run("npx", "openapi-typescript", openapi, "--default-non-nullable=false", "--output", "src/schema.ts", at=made)
    _run("npx", "tsc", "--project", ".", at=made)
    return made


def build_typescript(folder: Path) -> Path:
    """Build the npm package of the TypeScript client below a folder, and return its path."""
    made = compile_typescript(folder)
    _run("npm", "version", version("duet"), "--no-git-tag-version", "--allow-same-version", at=made)
    _run("npm", "pack", "--silent", "--pack-destination", folder, at=made)
    return folder / f"duet-client-{version('duet')}.tgz"


def _run(*words: object, at: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own commands
        list(map(str, words)), cwd=at, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}{done.stderr}`{' '.join(map(str, words))}` failed in {at}.")


def main(arguments: list[str] | None = None) -> None:
    """Build what this machine can build, and say where it is."""
    parser = argparse.ArgumentParser(description="Builds the Python and the TypeScript client of the HTTP API.")
    parser.add_argument("folder", nargs="?", default="build/clients", type=Path, help="where they are built")
    folder: Path = parser.parse_args(arguments).folder.resolve()
    sys.stdout.write(f"{build_python(folder)}\n")
    sys.stdout.write(f"{build_typescript(folder) if has_node() else NO_NODE}\n")


if __name__ == "__main__":
    main()
