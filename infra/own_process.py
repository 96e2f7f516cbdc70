"""What this process uses of its machine or container: memory, processor time, descriptors, and the disk of its data."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from infra.metrics import ServingMetrics

_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class OwnFigures:
    """Bytes, seconds and numbers; `mapped_bytes` are pages of files, which the kernel can take back at any time."""

    own_bytes: int
    mapped_bytes: int
    cpu_s: float
    descriptors: int
    memory_limit_bytes: int
    disk_free_bytes: int
    disk_size_bytes: int


class OwnProcess:
    """Looks at this process; `data_dir` lies on the disk that counts."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process = psutil.Process()
        self._memory_limit_bytes = memory_limit_bytes()

    def figures(self) -> OwnFigures:
        """Return the figures of this moment."""
        memory, times = self._process.memory_info(), self._process.cpu_times()
        mapped = getattr(memory, "shared", 0)
        disk = shutil.disk_usage(self._data_dir if self._data_dir.exists() else Path("/"))
        return OwnFigures(
            own_bytes=memory.rss - mapped,
            mapped_bytes=mapped,
            cpu_s=times.user + times.system,
            descriptors=self._process.num_fds(),
            memory_limit_bytes=self._memory_limit_bytes,
            disk_free_bytes=disk.free,
            disk_size_bytes=disk.total,
        )

    def note(self, metrics: ServingMetrics) -> None:
        """Put the figures into the metrics of this worker."""
        now = self.figures()
        metrics.process_memory.labels("own").set(now.own_bytes)
        metrics.process_memory.labels("mapped").set(now.mapped_bytes)
        metrics.process_cpu_seconds.set(now.cpu_s)
        metrics.process_descriptors.set(now.descriptors)
        metrics.memory_limit.set(now.memory_limit_bytes)
        metrics.disk_free.set(now.disk_free_bytes)
        metrics.disk_size.set(now.disk_size_bytes)


def memory_limit_bytes(limits: tuple[Path, ...] = _CGROUP_LIMITS) -> int:
    """Return the memory of this container, or of the machine where nothing limits it."""
    total = psutil.virtual_memory().total
    for path in limits:
        try:
            return min(int(path.read_text(encoding="ascii")), total)
        except (OSError, ValueError):  # not there, or `max`
            continue
    return total
