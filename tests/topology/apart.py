"""Namespaces of its own for a program that starts machines: nothing it makes is seen outside, and all ends with it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = {
    "/usr/lib/postgresql/15/bin/postgres": "postgresql",
    "/usr/sbin/pgbouncer": "pgbouncer",
    "/usr/sbin/haproxy": "haproxy",
    "/usr/bin/redis-server": "redis-server",
    "/usr/bin/openssl": "openssl",
    "/usr/bin/setpriv": "util-linux",
}
APART = ["unshare", "--net", "--mount", "--fork", "--kill-child"]


def missing() -> str | None:
    """Return why the topology cannot be run here; None where it can."""
    if os.geteuid():
        return "network namespaces and the account `postgres` need root"
    absent = [package for program, package in PROGRAMS.items() if not Path(program).exists()]
    if absent:
        return f"Debian's {', '.join(absent)} are not installed"
    made = subprocess.run([*APART, "ip", "link", "add", "x", "type", "bridge"], capture_output=True, check=False)
    return None if made.returncode == 0 else "this machine gives no network namespace with a bridge"


@contextmanager
def folder(prefix: str, *, keep: bool = False) -> Iterator[Path]:
    """Make a folder that every account can enter: those of PostgreSQL and PgBouncer cannot go into one of root's."""
    made = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        if not keep:
            shutil.rmtree(made, ignore_errors=True)


def command(module: str, *words: str | Path) -> list[str | Path]:
    """Return the command that runs a module in namespaces of its own."""
    return [*APART, sys.executable, "-m", module, *words]


def environment() -> dict[str, str]:
    """Return this process's environment without the settings of Duet, which are those of compose.yaml there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DUET_")}
