"""A folder or bucket that several machines share, by its URI: `file:///…`, `s3://…`, or what else fsspec can open.

A result is a folder of files with a list of them beside it, written last: without the list it is unfinished. A small
file is replaced whole, so that a reader sees the old or the new one.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from infra.files import write_whole
from pipelines.errors import SharedFolderUnavailable

if TYPE_CHECKING:
    from upath import UPath

_LIST: Final = ".files.json"


@dataclass(frozen=True)
class SharedFolder:
    """The shared folder at a URI; it is reached when it is first used."""

    uri: str

    @cached_property
    def _root(self) -> "UPath":
        from upath import UPath

        # Another machine writes there too, so what was listed before does not count.
        return UPath(self.uri, use_listings_cache=False)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None where there is none."""
        with self._reached():
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def read_all(self, pattern: str) -> list[bytes]:
        """Return the contents of the small files that match a pattern."""
        with self._reached():
            names = [str(path.relative_to(self._root)) for path in self._root.glob(pattern)]
        return [content for name in names if (content := self.read(name)) is not None]

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file whole."""
        with self._reached():
            path = self._root / name
            if urlsplit(self.uri).scheme in {"", "file", "local"}:
                write_whole(Path(path.path), content)
            else:
                path.write_bytes(content)

    def has(self, asset: str, digest: str) -> bool:
        """Tell whether a result is there and finished."""
        return self._list(asset, folder_name(digest)) is not None

    def put(self, directory: Path, asset: str, digest: str) -> bool:
        """Copy a result there, file by file, and return True; False where the same files were there already."""
        files = {
            path.relative_to(directory).as_posix(): path.stat().st_size
            for path in directory.rglob("*")
            if path.is_file()
        }
        if self._list(asset, folder_name(digest)) == files:
            return False
        with self._reached():
            target = self._root / asset / folder_name(digest)
            for name in files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                target.fs.put_file(str(directory / name), (target / name).path)
        self.write(f"{asset}/{folder_name(digest)}/{_LIST}", json.dumps(files).encode())
        return True

    def fetch(self, asset: str, digest: str, into: Path) -> None:
        """Copy a result from there to the new folder `into`."""
        source = self._root / asset / folder_name(digest)
        with self._reached():
            into.mkdir(parents=True)
            for name in self._list(asset, folder_name(digest)) or {}:
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                source.fs.get_file((source / name).path, str(into / name))

    def ages(self, asset: str) -> dict[str, float]:
        """Return when each finished result of an asset was put there, as seconds since 1970, by folder."""
        with self._reached():
            lists = list((self._root / asset).glob(f"*/{_LIST}"))
            return {path.parent.name: path.fs.modified(path.path).timestamp() for path in lists}

    def remove(self, asset: str, name: str) -> None:
        """Remove a result, its list first, so that nobody takes what is left of it for whole."""
        with self._reached():
            folder = self._root / asset / name
            (folder / _LIST).unlink(missing_ok=True)
            if folder.exists():
                folder.fs.rm(folder.path, recursive=True)

    def _list(self, asset: str, name: str) -> dict[str, int] | None:
        content = self.read(f"{asset}/{name}/{_LIST}")
        return None if content is None else dict(json.loads(content))

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except SharedFolderUnavailable:
            raise
        except Exception as error:
            # Whatever a driver raises: there is one for each kind of store.
            raise SharedFolderUnavailable(
                f"the shared results at `{self.uri}` cannot be reached: {type(error).__name__}: {error}; "
                "look at `DUET_RESULTS_URI` and the store's own settings (for S3: `AWS_ENDPOINT_URL`, "
                "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and the package `duet[s3]`)"
            ) from error


def folder_name(digest: str) -> str:
    """Return the name of the folder of a result."""
    return digest[:16]
