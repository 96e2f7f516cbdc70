"""The account and the folders an embedded PostgreSQL runs with: it refuses to run as root, so root makes one for it.

The account, `duet-postgres`, is nobody else's: what belongs to `nobody` belongs to every service that runs as that.
What it cannot reach (a checkout below `/root`, a temporary folder of mode 700) is kept or copied below `/var/tmp`, in
 a folder whose name is a hash of the original path.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.embedded.files import write_text
from infra.errors import ServerUnavailable

ACCOUNT = "duet-postgres"
ACCOUNT_TIMEOUT_S = 30.0
_USERADD_EXISTS, _USERADD_BUSY = 9, 10
REACHABLE = Path("/var/tmp")  # noqa: S108 - the folder we make there is checked to be ours


@dataclass(frozen=True)
class Account:
    """Whom the server runs as; `None` means this very user."""

    uid: int | None
    gid: int | None

    @classmethod
    def choose(cls) -> "Account":
        """Return the server's own account for root, made the first time, and this user for everybody else."""
        if os.geteuid() != 0:
            return cls(None, None)
        entry = _made_account()
        return cls(entry.pw_uid, entry.pw_gid)

    def popen(self) -> dict[str, Any]:
        """Return the arguments that make `subprocess` drop to this account."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_reach(self, path: Path) -> bool:
        """Tell whether the account may enter every folder above `path`."""
        return self.uid is None or all(_may_enter(parent, self.uid, self.gid) for parent in path.absolute().parents)

    def let_through(self, folder: Path) -> None:
        """Let the account enter a private folder, which it still cannot list."""
        if self.gid is not None:
            os.chown(folder, -1, self.gid)
            folder.chmod(0o710)

    def make_folder(self, path: Path) -> None:
        """Make a folder of mode 700 owned by the account; refuses one that belongs to somebody else."""
        path.mkdir(parents=True, exist_ok=True)
        if self.uid is None:
            path.chmod(0o700)
            return
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {0, self.uid, _shared_uid()}:
            raise ServerUnavailable(f"`{path}` belongs to somebody else (uid {found.st_uid}): remove it.")
        if found.st_uid == _shared_uid():  # made by a version that lent the server `nobody`
            for inner, folders, files in os.walk(path):
                for name in (*folders, *files):
                    os.chown(Path(inner, name), self.uid, self.gid or -1, follow_symlinks=False)
        os.chown(path, self.uid, self.gid if self.gid is not None else -1)
        path.chmod(0o700)


def make_private(folder: Path) -> None:
    """Make a folder that nobody but this account may enter, or take it from all others; leave what is not ours."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid():
        return
    is_lent = found.st_uid == 0 and found.st_gid == _gid_of_account()
    mode = 0o710 if is_lent else 0o700
    if stat.S_IMODE(found.st_mode) & ~mode:
        folder.chmod(stat.S_IMODE(found.st_mode) & mode)


def data_folder(account: Account, wanted: Path, note: Path) -> Path:
    """Return where the server's data lies: `wanted`, or a folder below /var/tmp where the account cannot reach it.

    The choice is written to `note` and kept, so that data is never left behind by a changed permission.
    """
    with contextlib.suppress(FileNotFoundError):
        return Path(note.read_text(encoding="utf-8").strip())
    chosen = wanted if account.can_reach(wanted / "PG_VERSION") or wanted.exists() else _aside(wanted)
    write_text(note, f"{chosen}\n")
    return chosen


def reachable_copy(account: Account, programs: Path) -> Path:
    """Return a folder of programs that the account can run: `programs` itself, or a copy of it made once.

    A wheel keeps the shared libraries of `PACKAGE/…` in `PACKAGE.libs` beside it: they are copied along.
    """
    if account.can_reach(programs / "bin" / "postgres"):
        return programs
    package = programs.parent
    libraries = package.with_name(f"{package.name}.libs")
    size = sum(path.stat().st_size for path in programs.rglob("*") if path.is_file())
    copy = _aside(programs, f"-{size}")
    if not copy.exists():
        temporary = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(programs, temporary / package.name / programs.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, temporary / libraries.name, symlinks=True)
        for folder in (temporary, temporary / package.name):
            folder.chmod(0o755)
        try:
            temporary.rename(copy)
        except OSError:  # another start was faster
            shutil.rmtree(temporary)
    if copy.lstat().st_uid != os.geteuid():
        raise ServerUnavailable(f"`{copy}` belongs to somebody else: remove it, then try again.")
    return copy / package.name / programs.name


def _aside(path: Path, suffix: str = "") -> Path:
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return REACHABLE / f"duet-{digest}{suffix}"


def _made_account() -> pwd.struct_passwd:
    """Return the server's account, making it where it is missing; several starts may try at once."""
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    command = ("useradd", *options, "--shell", "/usr/sbin/nologin", ACCOUNT)
    until = time.monotonic() + ACCOUNT_TIMEOUT_S
    said = "there is no `useradd`"
    while True:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(ACCOUNT)
        if time.monotonic() > until:
            break
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 - a fixed command
        except FileNotFoundError:
            break
        said = made.stderr.strip() or said
        if made.returncode not in {0, _USERADD_EXISTS, _USERADD_BUSY}:
            break
        time.sleep(0.1)
    raise ServerUnavailable(
        f"PostgreSQL refuses to run as root, and its account `{ACCOUNT}` could not be made ({said}): make it, run as"
        " another user, or set `DUET_DATABASE_URL` to a server of yours."
    )


def _gid_of_account() -> int | None:
    try:
        return pwd.getpwnam(ACCOUNT).pw_gid
    except KeyError:
        return None


def _shared_uid() -> int | None:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return None


def _may_enter(folder: Path, uid: int, gid: int | None) -> bool:
    try:
        found = folder.stat()
    except FileNotFoundError:
        return True  # we shall make it, with the usual mode
    others = stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
    needed = stat.S_IXUSR if found.st_uid == uid else others
    return bool(found.st_mode & needed)
