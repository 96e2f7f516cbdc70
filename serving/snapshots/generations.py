"""The snapshot on disk: `<data_dir>/snapshot/<generation>/`, written by one process and mapped by all workers.

A generation is written aside, synced, described by a header with digests that is written last, and renamed into place:
a killed writer leaves nothing that anybody reads. Only the holder of the lock writes, sweeps and prunes. The kernel
drops the lock with the last process that holds it, and pages that somebody mapped outlive their removed files.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_repo.errors import MalformedFeatures
from feature_repo.population.population import Population
from feature_repo.schema import layout_digest
from infra.endpoints import Endpoints
from infra.files import sha256_of, sync
from infra.settings import Settings
from registry.scoring.recent_likes import RecentLikes
from serving.errors import UnusableGeneration
from serving.snapshots.population_source import PopulationSnapshot

FORMAT: Final = 2
SPARE: Final = 2
"""Generations that stay: the newest, and one that a worker may be opening this instant."""
_HEADER: Final = "header.json"
_STAGING: Final = "writing-"
_DIGITS: Final = 12
_MAX_HEADER_BYTES: Final = 2**20
_PAGE_BYTES: Final = 4096


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    sha256: str


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    schema_digest: str
    source: str
    written_at: datetime
    read_at: datetime | None
    filled_at: datetime | None
    horizon: int
    slots: dict[str, int]
    problem: str | None
    files: dict[str, _File]


@dataclass(frozen=True)
class Generation:
    """A mapped snapshot, when it was written, and what was wrong while it was."""

    number: int
    snapshot: PopulationSnapshot
    written_at: datetime
    problem: str | None


class Generations:
    """The generations below `root`; `source` names the database and feature project that they must come from."""

    def __init__(self, root: Path, source: str) -> None:
        self.root = root
        self._source = source

    def numbers(self) -> list[int]:
        """Return the generations that are there, newest first; looks at names only."""
        try:
            names = [entry.name for entry in os.scandir(self.root)]
        except FileNotFoundError:
            return []
        return sorted((int(name) for name in names if len(name) == _DIGITS and name.isdecimal()), reverse=True)

    def newest(self, *, after: int = 0) -> Generation | None:
        """Map the newest usable generation above `after`; None when there is none.

        Raises UnusableGeneration when there are newer ones and none of them can be used.
        """
        refused: UnusableGeneration | None = None
        for number in self.numbers():
            if number <= after:
                break
            try:
                return self.open(number)
            except UnusableGeneration as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return None

    def open(self, number: int) -> Generation:
        """Verify one generation and map its files; raises UnusableGeneration."""
        folder = self._folder(number)
        header = self._header(folder)
        try:
            for name, expected in header.files.items():
                path = folder / name
                if path.stat().st_size != expected.size or sha256_of(path) != expected.sha256:
                    raise UnusableGeneration(f"`{path}` is damaged: the snapshot is written anew.")
            population = Population.load(folder)
            likes = RecentLikes.load(folder, population.base.user_ids)
        except (OSError, ValueError, EOFError, MalformedFeatures) as error:
            raise UnusableGeneration(f"`{folder}` cannot be read: {type(error).__name__}.") from error
        if len(likes.liked) != len(population.base):
            raise UnusableGeneration(f"`{folder}` has likes of other people: the snapshot is written anew.")
        population.positions([0])  # makes its tables of look-ups
        _touch(population.base.user_ids, *population.base.views, population.grid.order, population.grid.keys)
        _touch(*population.traits.arrays, likes.liked)
        snapshot = PopulationSnapshot(population, likes, header.slots, header.read_at, header.filled_at, header.horizon)
        return Generation(number, snapshot, header.written_at, header.problem)

    def oldest_read_at(self) -> datetime | None:
        """Return when the people of the oldest generation here were read; None without any, or where one is unread."""
        read = []
        for number in self.numbers():
            try:
                read.append(self._header(self._folder(number)).read_at)
            except UnusableGeneration:
                read.append(None)
        known = [at for at in read if at is not None]
        return min(known) if known and len(known) == len(read) else None

    def lock(self) -> TextIO | None:
        """Take the right to write, or None while another process has it; closing the file gives it back.

        A child that inherits the file keeps the right for as long as it lives.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        file = (self.root / "lock").open("a", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        return file

    def write(self, snapshot: PopulationSnapshot, *, at: datetime, problem: str | None = None) -> int:
        """Write a compacted snapshot as the next generation and return its number; only for the lock's holder."""
        self.sweep()
        number = max(self.numbers(), default=0) + 1
        with self._staged(number) as staged:
            snapshot.population.save(staged)
            snapshot.recent_likes.save(staged)
            files = {}
            for path in sorted(staged.iterdir()):
                sync(path)
                files[path.name] = _File(size=path.stat().st_size, sha256=sha256_of(path))
            header = _Header(
                format=FORMAT,
                schema_digest=layout_digest(),
                source=self._source,
                written_at=at,
                read_at=snapshot.read_at,
                filled_at=snapshot.filled_at,
                horizon=snapshot.horizon,
                slots=snapshot.slots,
                problem=problem,
                files=files,
            )
            (staged / _HEADER).write_text(header.model_dump_json(), encoding="utf-8")
            sync(staged / _HEADER)
            sync(staged)
            staged.rename(self._folder(number))
            sync(self.root)
        self.sweep()
        return number

    def sweep(self) -> None:
        """Remove what killed writers left, and all but the newest generations; only for the lock's holder."""
        for path in self.root.glob(f"{_STAGING}*"):
            shutil.rmtree(path, ignore_errors=True)
        for number in self.numbers()[SPARE:]:
            shutil.rmtree(self._folder(number), ignore_errors=True)

    def _header(self, folder: Path) -> _Header:
        try:
            with (folder / _HEADER).open("rb") as file:
                header = _Header.model_validate_json(file.read(_MAX_HEADER_BYTES))
        except (OSError, ValidationError) as error:
            raise UnusableGeneration(f"`{folder}` has no readable header: the snapshot is written anew.") from error
        for what, found, wanted in (
            ("format", header.format, FORMAT),
            ("feature schema", header.schema_digest, layout_digest()),
            ("source", header.source, self._source),
        ):
            if found != wanted:
                raise UnusableGeneration(f"`{folder}` is of another {what}: the snapshot is written anew.")
        return header

    @contextlib.contextmanager
    def _staged(self, number: int) -> Iterator[Path]:
        staged = self.root / f"{_STAGING}{number:0{_DIGITS}d}"
        staged.mkdir(parents=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self.root / f"{number:0{_DIGITS}d}"


def source_of(settings: Settings, endpoints: Endpoints) -> str:
    """Name the database and the feature project that a snapshot comes from, without secrets."""
    place = urlsplit(endpoints.database_url)
    return f"{place.hostname}:{place.port or 5432}{place.path} {settings.features.project}"


def _touch(*arrays: NDArray[Any]) -> None:
    """Map every page now, from this thread, so that no request does."""
    for array in arrays:
        flat = array.reshape(-1)
        flat[:: max(1, _PAGE_BYTES // array.itemsize)].max(initial=0)
