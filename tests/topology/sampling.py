"""What the processes, connections and volumes of the machines hold at a moment."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from tests.topology.machines import Machine

MB = 1e6
PASSING_S = 600.0
"""Age below which a process that began during the soak may be a run, and will end."""
BY_ROLE = """
    select coalesce(usename, 'nobody'), count(*) from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid() group by 1 order by 1
"""
ESTABLISHED, CLOSE_WAIT = "01", "08"
ENDS = {ESTABLISHED: "established connections", CLOSE_WAIT: "connections that only the other side closed"}


class Sampler:
    """Looks at machines that run; `folder` is where all they write is."""

    def __init__(self, machines: Iterable[Machine], folder: Path) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self._folder = folder
        self._began = time.time()

    def sample(self) -> dict[str, dict[str, float]]:
        """Return the figures of now, by whose they are and by measure."""
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for name, processes in self._processes().items():
            self._of_machine(name, processes, found)
        for name in ("postgres", "postgres-standby"):
            words = ("psql", "-At", "-F", " ", "-U", "duet", "-d", "duet", "-c", BY_ROLE)
            machine = self._machines[name]
            machine.environment["PGPASSWORD"] = (self._folder / "secrets" / "postgres_password").read_text().strip()
            for line in machine.run(*words).splitlines():
                role, count = line.split()
                found[f"{name}, {role}"]["connections"] = float(count)
        for what, place in self._places():
            found[what]["disk, MB"] = _size(place) / MB
        return dict(found)

    def _processes(self) -> dict[str, list[psutil.Process]]:
        networks = {Path(f"/run/netns/{name}").stat().st_ino: name for name in self._machines}
        found: dict[str, list[psutil.Process]] = {name: [] for name in self._machines}
        for process in psutil.process_iter():
            with suppress(OSError):
                name = networks.get(Path(f"/proc/{process.pid}/ns/net").stat().st_ino)
                if name is not None:
                    found[name].append(process)
        return found

    def _of_machine(
        self, name: str, processes: list[psutil.Process], found: defaultdict[str, dict[str, float]]
    ) -> None:
        passing = 0.0
        for process in processes:
            with suppress(OSError, psutil.Error):  # it has ended meanwhile
                born = process.create_time()
                words = process.cmdline()
                if not words:
                    continue  # nobody has asked yet how it ended
                is_young = born > self._began and time.time() - born < PASSING_S
                if is_young and not name.startswith("postgres"):
                    passing += 1
                    continue
                figures = {
                    "processes": 1.0,
                    "memory, MB": _anonymous(process.pid) / MB,
                    "threads": float(process.num_threads()),
                }
                if not name.startswith("postgres"):
                    # PostgreSQL keeps up to a thousand files of tables open in each process, because that is faster.
                    figures["descriptors"] = float(process.num_fds())
                of = found[f"{name}, {part(words)}"]
                for measure, value in figures.items():
                    of[measure] = of.get(measure, 0.0) + value
        found[f"{name}, younger than {PASSING_S / 60:g} minutes"]["processes"] = passing
        if processes:
            for state, count in _connections(processes[0].pid).items():
                found[f"{name}, {ENDS[state]}"]["connections"] = float(count)

    def _places(self) -> Iterator[tuple[str, Path]]:
        for volume in sorted((self._folder / "volumes").iterdir()):
            yield f"volume {volume.name}", volume
        yield "volume redis", self._folder / "appendonlydir"
        for machine in self._machines.values():
            yield f"log of {machine.name}", machine.log
            yield f"temporary files of {machine.name}", self._folder / "temporary" / machine.name
        yield "file systems of images", self._folder / "copied"


def part(words: list[str]) -> str:
    """Return in a few words what a process is, from its command."""
    line = " ".join(words)
    if line.startswith("postgres: "):
        is_asked = re.search(r"\(\d+\)", line) and "walsender" not in line
        return "connections" if is_asked else "background"
    if "resource_tracker" in line:
        return "resource tracker"
    if "multiprocessing.spawn" in line:
        return "spawned"
    if "-m" in words:
        after = words[words.index("-m") + 1 :]
        return " ".join(word for word in after[:3] if not word.startswith("-")) if after[0] == "dagster" else after[0]
    names = [Path(word).name for word in line.split()[:3]]
    if names[0].startswith("python") and len(names) > 1:
        names = names[1:]
    return " ".join([names[0].rstrip(":"), *(name for name in names[1:2] if re.fullmatch("[a-z][a-z-]+", name))])


def _anonymous(pid: int) -> int:
    """Return the bytes that only this process holds: no files that are mapped, and no shared buffers of PostgreSQL."""
    told = re.search(r"(?m)^Pss_Anon:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(told[1]) * 1024 if told else 0


def _connections(pid: int) -> dict[str, int]:
    counts = dict.fromkeys(ENDS, 0)
    for kind in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
                state = line.split()[3]
                if state in counts:
                    counts[state] += 1
    return counts


def _size(place: Path) -> int:
    if place.is_file():
        return place.stat().st_size
    total = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with suppress(OSError):
                total += os.lstat(Path(folder) / name).st_blocks * 512
    return total
