"""Small machines for the services of compose.yaml: each has an address, mounts and secrets, and no container.

Everything here runs in a network and a mount namespace that `unshare` made: nothing of it is seen outside, and all of
it is gone with the process that made it.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.architecture.compose import COMPOSE, composed
from tests.architecture.sources import ROOT

SUBNET = "172.30.66."
FREE = 129  # the first address of `ip_range` in compose.yaml
BRIDGE = "duet0"
IN_PRIVATE = "mount --make-rprivate /"
DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
# Bound below folders that are the machine's: copies that only this namespace sees.
COPIED = ("/etc", "/opt", "/usr/local", "/var/lib")
# What the images set for their own file system, which is not there.
OF_IMAGES = {"PATH", "HOME", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"}


def run(*words: str | Path, **more: Any) -> str:
    """Run a command to its end and return what it printed; raises AssertionError with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done.stdout


def image_environment(target: str) -> dict[str, str]:
    """Return what the Dockerfile sets in the stages that the image of `target` consists of."""
    found: dict[str, str] = {}
    for stage in re.split(r"(?m)^FROM ", DOCKERFILE):
        if re.match(rf".* AS (base|runtime|{target})\n", stage):
            for block in re.findall(r"(?m)^ENV ((?:.*\\\n)*.*)$", stage):
                found |= dict(word.split("=", 1) for word in block.replace("\\\n", " ").split())
    return {name: value for name, value in found.items() if name not in OF_IMAGES}


@dataclass
class Network:
    """The network `inside` of compose.yaml, its machines by name, and the folder that takes what they write."""

    folder: Path
    environment: dict[str, str]
    addresses: dict[str, str] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)

    def make(self, names: Sequence[str]) -> None:
        """Make the network and a machine for each of the services, which know each other by name."""
        file = composed(self.environment)
        self.services = {name: file["services"][name] for name in names}
        run("mount", "--make-rprivate", "/")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        for place in COPIED:
            upper, work = (self.folder / "copied" / place.strip("/").replace("/", "-") / part for part in ("u", "w"))
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            options = f"lowerdir={place},upperdir={upper},workdir={work}"
            run("mount", "-t", "overlay", "overlay", "-o", options, place)
        for place in ("/run/netns", "/run/secrets", "/run/postgresql", "/opt/duet", "/var/lib/duet"):
            Path(place).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(ROOT), "/opt/duet")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{SUBNET}1/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        for number, (name, service) in enumerate(self.services.items()):
            fixed = service["networks"]["inside"] if isinstance(service["networks"], dict) else {}
            self.addresses[name] = str(fixed.get("ipv4_address") or f"{SUBNET}{FREE + number}")
            self._connect(name, f"duet{number + 1}")
        hosts = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        # Refused at once, as Docker's own server answers at once: gRPC would wait a minute and a half for one that is
        # not reached, because it asks for addresses of IPv6 as well.
        Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")

    def _connect(self, name: str, wire: str) -> None:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", wire, "master", BRIDGE, "up")
        inside = ("ip", "-n", name)
        run(*inside, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "route", "add", "default", "via", f"{SUBNET}1")

    def machine(self, name: str, command: Sequence[str], **more: Any) -> "Machine":
        """Return the machine of a service that will run `command`."""
        return Machine(self, name, [*command], **more)


@dataclass
class Machine:
    """One service of compose.yaml as processes of a namespace; what it is not told here, it takes from the file."""

    network: Network
    name: str
    command: list[str]
    user: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Return where its output goes."""
        return self.network.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start its command."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._inside(self.command), env=self.variables(), cwd=ROOT, stdout=output, stderr=output
            )

    def run(self, *command: str) -> str:
        """Run another command on it to its end and return what it printed; raises AssertionError."""
        return run(*self._inside(command), env=self.variables(), cwd=ROOT)

    def kill(self) -> None:
        """SIGKILL every process of it."""
        for pid in run("ip", "netns", "pids", self.name).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.process is not None:
            self.process.wait(30)

    def variables(self) -> dict[str, str]:
        """Return its environment: of the image, of compose.yaml, and what the test adds."""
        service = self.network.services[self.name]
        target = service["image"].rpartition("-")[2]
        ours = image_environment(target) if target in {"serving", "pipelines"} else {}
        path = f"{ROOT / '.venv' / 'bin'}:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        given = {name: str("" if value is None else value) for name, value in service.get("environment", {}).items()}
        return {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", **ours, **given, **self.environment}  # noqa: S108

    def _inside(self, command: Sequence[str]) -> list[str]:
        """Return the command in this machine's network, with its secrets and mounts."""
        binds = [
            (self._secrets(), Path("/run/secrets")),
            (self._sockets(), Path("/run/postgresql")),
            *self._volumes(),
        ]
        script = "; ".join(f"mount --bind {source} {target}" for source, target in binds)
        account = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"] if self.user else []
        shell = ["sh", "-c", f'set -e; {IN_PRIVATE}; {script}; exec "$@"', "sh"]
        return ["ip", "netns", "exec", self.name, "unshare", "--mount", *shell, *account, *command]

    def _secrets(self) -> Path:
        """Return a folder with the secrets that compose.yaml gives it, under the names that it gives them."""
        folder = self.network.folder / "secrets-of" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for entry in self.network.services[self.name].get("secrets", []):
            source, target = (entry, entry) if isinstance(entry, str) else (entry["source"], entry["target"])
            shutil.copyfile(self.network.folder / "secrets" / source, folder / target)
        return folder

    def _sockets(self) -> Path:
        """Return a folder for the sockets of PostgreSQL: two servers of one port cannot share one."""
        folder = self.network.folder / "sockets" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "postgres", "postgres")
        return folder

    def _volumes(self) -> list[tuple[Path, Path]]:
        """Return what is mounted where; what is mounted on must be there."""
        binds = []
        for mount in self.network.services[self.name].get("volumes", []):
            given, target = mount.removesuffix(":ro").split(":")
            source = (COMPOSE / given).resolve() if given.startswith(".") else self.network.folder / "volumes" / given
            if target in {"/data", "/import"} or "initdb" in target:
                continue  # told on the command line, or not used
            if not given.startswith("."):
                source.mkdir(parents=True, exist_ok=True)
                if self.user:
                    shutil.chown(source, self.user, self.user)
            place = Path(target)
            (place if source.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
            if source.is_file():
                place.touch()
            binds.append((source, place))
        return binds
