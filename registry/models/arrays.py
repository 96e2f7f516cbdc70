"""NumPy files without pickle: large arrays as `.npy` so that workers map the same pages, small ones as `.npz`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import CorruptArtifact
from registry.models.artifacts import FileWriter

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def npy_writer(array: NDArray[Any]) -> FileWriter:
    """Return a writer of one array."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)

    return write


def npz_writer(arrays: Mapping[str, NDArray[Any]]) -> FileWriter:
    """Return a writer of several small arrays; the zip's time stamps are constant, so equal arrays give equal bytes."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    return write


def read_npy(path: Path, dtype: type[np.generic], ndim: int) -> NDArray[Any]:
    """Map an array read-only; raise CorruptArtifact unless it has this dtype and this number of dimensions."""
    try:
        # As a plain array: indexing np.memmap itself costs microseconds each time.
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise CorruptArtifact(f"`{path}` is not a NumPy file: build it again.") from error
    return _checked(path, path.name, array, dtype, ndim)


def read_npz(path: Path, wanted: Mapping[str, tuple[type[np.generic], int]]) -> dict[str, NDArray[Any]]:
    """Read the wanted arrays into memory, each checked for its dtype and number of dimensions."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in wanted}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise CorruptArtifact(f"`{path}` does not hold the arrays {', '.join(wanted)}: build it again.") from error
    return {name: _checked(path, name, found[name], *kind) for name, kind in wanted.items()}


def _checked(path: Path, name: str, array: Any, dtype: type[np.generic], ndim: int) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != ndim:
        raise CorruptArtifact(f"`{path}` holds `{name}` of another type or shape than {np.dtype(dtype)}[{ndim}d].")
    return array
