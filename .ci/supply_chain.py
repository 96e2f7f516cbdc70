"""Look at what Duet is made of: licences and the list of packages, secrets in its files, known weaknesses.

    python .ci/supply_chain.py            # licences, bill of materials, secrets: all without a network
    python .ci/supply_chain.py audit      # asks a database of advisories about each locked package

Exceptions, each with its reason, stand in `exceptions.toml`. The bill of materials goes to `build/sbom`.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXCEPTIONS = ROOT / ".ci" / "exceptions.toml"
BIN = Path(sys.executable).parent
IMAGES = ("serving", "pipelines")
OWN = {"duet"}
"""What is installed and is no package of others."""
KINDS_OF_SECRETS = (
    "AWSKeyDetector",
    "AzureStorageKeyDetector",
    "Base64HighEntropyString",
    "BasicAuthDetector",
    "GitHubTokenDetector",
    "GitLabTokenDetector",
    "HexHighEntropyString",
    "JwtTokenDetector",
    "KeywordDetector",
    "OpenAIDetector",
    "PrivateKeyDetector",
    "PypiTokenDetector",
    "SlackDetector",
)


@dataclass(frozen=True)
class Exceptions:
    """The entries of `exceptions.toml`."""

    allowed: frozenset[str]
    licences: tuple[dict[str, Any], ...]
    values: tuple[dict[str, Any], ...]
    weaknesses: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: Path, today: date) -> "Exceptions":
        """Read the file; end with a sentence where an entry has no reason or its day has come."""
        told = tomllib.loads(path.read_text())
        entries = [entry for kind in ("licence", "value", "weakness") for entry in told.get(kind, [])]
        for entry in entries:
            if len(str(entry.get("why", "")).split()) < 4:
                sys.exit(f"error: an entry of {path.name} has no reason: {entry}")
            if "until" in entry and entry["until"] <= today:
                sys.exit(f"error: an entry of {path.name} ended on {entry['until']}: {entry['why']}")
        if [entry for entry in told.get("weakness", []) if "until" not in entry]:
            sys.exit(f"error: a weakness in {path.name} has no day `until` which it may stay.")
        return cls(
            frozenset(told["licences"]["allowed"]),
            tuple(told.get("licence", [])),
            tuple(told.get("value", [])),
            tuple(told.get("weakness", [])),
        )


def licences(found: Iterable[dict[str, str]], exceptions: Exceptions) -> Iterator[str]:
    """Say which packages of pip-licenses have a licence that is not allowed, and which exceptions nothing needs."""
    excepted = {
        (name, licence) for entry in exceptions.licences for name in entry["packages"] for licence in entry["licence"]
    }
    used = set()
    for package in found:
        name = re.sub(r"[-_.]+", "-", package["Name"]).lower()
        for part in re.split(r"; | AND ", package["License"]):
            choices = set((part[1:-1] if part.startswith("(") else part).split(" OR "))
            if name in OWN or choices & exceptions.allowed:
                continue
            if pairs := {(name, choice) for choice in choices} & excepted:
                used |= {name for name, _ in pairs}
                continue
            yield f"{name} {package['Version']} has the licence `{part}`, which is not among those allowed."
    for name in sorted({name for name, _ in excepted} - used):
        yield f"{name} needs no exception for its licence any more."


def secrets(folder: Path, files: Iterable[str], exceptions: Exceptions) -> Iterator[str]:
    """Say in which files of a folder detect-secrets finds what is not excepted."""
    from detect_secrets import SecretsCollection
    from detect_secrets.core.scan import get_plugins
    from detect_secrets.plugins.keyword import DENYLIST, KeywordDetector
    from detect_secrets.settings import transient_settings

    words = re.compile("|".join(DENYLIST), re.IGNORECASE)
    excepted = {value for entry in exceptions.values for value in entry["values"]}
    used = set()
    collection = SecretsCollection(root=str(folder))
    with transient_settings({"plugins_used": [{"name": name} for name in KINDS_OF_SECRETS]}):
        plugins = list(get_plugins())
        for name in files:
            text = (folder / name).read_text(errors="replace")
            # Line by line costs ten times as much: only files in which a detector sees something are gone through so.
            asked = [each for each in plugins if not isinstance(each, KeywordDetector) or words.search(text)]
            if any(plugin.analyze_line(filename=name, line=text, line_number=1) for plugin in asked):
                collection.scan_file(name)
    for name, secret in sorted(collection, key=lambda found: (found[0], found[1].line_number, found[1].type)):
        used.add(secret.secret_value)
        if secret.secret_value not in excepted:
            where = f"{name}:{secret.line_number}"
            yield f"{where} may hold a secret ({secret.type}): take it out, or say in {EXCEPTIONS.name} why it is none."
    for value in sorted(excepted - used):
        yield f"`{value}` is found nowhere any more and needs no exception."


def bill_of_materials(image: str, folder: Path) -> subprocess.Popen[str]:
    """Start writing the list of an image's packages, which ends well only if it obeys the schema of CycloneDX."""
    folder.mkdir(parents=True, exist_ok=True)
    # As XML, the schema is checked in a tenth of the time.
    how = ("--output-format", "XML", "--output-reproducible", "--validate")
    to = ("--output-file", str(folder / f"{image}.cdx.xml"))
    lock = str(ROOT / "infra" / "docker" / f"{image}.lock")
    return started("cyclonedx-py", "requirements", "--pyproject", str(ROOT / "pyproject.toml"), *how, *to, lock)


def audit(lock: Path, exceptions: Exceptions, service: Iterable[str]) -> int:
    """Ask about each package of a lock; a package that the database does not know is a failure as well."""
    ignored = [word for entry in exceptions.weaknesses for word in ("--ignore-vuln", entry["id"])]
    command = ["--requirement", str(lock), "--require-hashes", "--disable-pip", "--strict", "--progress-spinner", "off"]
    return subprocess.run([BIN / "pip-audit", *command, *ignored, *service], check=False).returncode


def tracked_files() -> list[str]:
    """Return the files under version control that a secret could stand in: not the locks, nor the exceptions."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if (ROOT / name).is_file() and not name.endswith(".lock")]
    return [name for name in names if ROOT / name != EXCEPTIONS]


def check() -> list[str]:
    """Look at everything that needs no network, and return what is wrong in sentences."""
    exceptions = Exceptions.read(EXCEPTIONS, datetime.now(UTC).date())
    asked = started("pip-licenses", "--format", "json")
    bills = [bill_of_materials(image, ROOT / "build" / "sbom") for image in IMAGES]
    wrong = [*secrets(ROOT, tracked_files(), exceptions)]
    wrong += licences(json.loads(output(asked)), exceptions)
    for bill in bills:
        output(bill)
    return wrong


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program of this environment."""
    return subprocess.Popen([BIN / program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    """Return what a program printed; end with what it complained of where it failed."""
    printed, complaint = process.communicate()
    if process.returncode:
        sys.exit(f"error: {process.args} ended with {process.returncode}: {complaint}")
    return printed


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("check", "audit"), default="check")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock", help="what `audit` asks about")
    parser.add_argument("--exceptions", type=Path, default=EXCEPTIONS, help="the file with what is let pass")
    asked, service = parser.parse_known_args()
    if asked.what == "audit":
        exceptions = Exceptions.read(asked.exceptions, datetime.now(UTC).date())
        sys.exit(audit(asked.lock, exceptions, service))
    wrong = check()
    sys.stdout.writelines(f"{sentence}\n" for sentence in wrong)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
