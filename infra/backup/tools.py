"""PostgreSQL's own `pg_dump` and `pg_restore`: those on the path, or those that came with the embedded server.

Passwords travel in the environment, because arguments can be read by everybody on the machine.
"""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from infra.backup.errors import ToolFailed, ToolMissing
from infra.embedded.postgres import installed_programs
from infra.errors import ServerUnavailable
from infra.files import PRIVATE

DUMP: Final = "pg_dump"
RESTORE: Final = "pg_restore"
_LONGEST_REASON: Final = 300


def run_tool(name: str, database_url: str, server_version: int, *arguments: str) -> None:
    """Run a tool on a database; `server_version` is as psycopg tells it (170004). Raises ToolMissing and ToolFailed."""
    place = psycopg.conninfo.conninfo_to_dict(database_url)
    password = place.pop("password", None)
    command = [
        str(tool_for(name, server_version // 10_000)),
        *("--dbname", psycopg.conninfo.make_conninfo("", **place), "--no-password"),
        *arguments,
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(  # noqa: S603 - PostgreSQL's own
        command,
        env=environment | ({"PGPASSWORD": str(password)} if password else {}),
        capture_output=True,
        text=True,
        check=False,
        umask=PRIVATE,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ToolFailed(f"`{name}` failed: {lines[0][:_LONGEST_REASON]}.")


def tool_for(name: str, major: int) -> Path:
    """Return the oldest of this machine's tools that a server of a major version can be read or written with.

    Raises:
        ToolMissing: there is none.
    """
    found = {version: path for path in _candidates(name) if (version := _major(path)) is not None and version >= major}
    if not found:
        raise ToolMissing(
            f"The server is PostgreSQL {major}, and no `{name}` of that version or a newer one is here: install the "
            f"package `postgresql-client-{major}`, or run this where it is."
        )
    return found[min(found)]


def _candidates(name: str) -> list[Path]:
    here = [path for path in [shutil.which(name)] if path is not None]
    here += sorted(str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    with suppress(ServerUnavailable):  # an installation without the embedded server
        here.append(str(installed_programs() / "bin" / name))
    return [Path(path) for path in here if os.access(path, os.X_OK)]


def _major(path: Path) -> int | None:
    said = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    version = re.search(r"\) (\d+)", said)
    return None if version is None else int(version.group(1))
