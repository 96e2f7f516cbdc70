"""Lets go of mapped files without standing still.

Unmapping a file takes as long as the pages that were touched, 5 ms for a quarter of a gigabyte, and no Python runs
meanwhile. When its pages are forgotten first, a few at a time and without the interpreter's lock, little is left to do.
"""

import ctypes
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_AT_ONCE: Final = 2**22


def forget_pages(folders: Iterable[Path]) -> int:
    """Forget the pages that this process has mapped, read-only, of files in `folders`; return how many bytes they span.

    Whoever still reads them finds them again. Does nothing where the system cannot tell what is mapped.
    """
    if not _MAPS.exists():
        return 0
    libc = ctypes.CDLL(None, use_errno=True)  # its calls leave the interpreter's lock
    spans = list(_mapped({str(folder.resolve()) for folder in folders}))
    for start, end in spans:
        for address in range(start, end, _AT_ONCE):
            length = min(_AT_ONCE, end - address)
            libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
    return sum(end - start for start, end in spans)


def _mapped(folders: set[str]) -> Iterator[tuple[int, int]]:
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, rights, _, _, _, *path = line.split(maxsplit=5)
        # Of a page that may be written to, what was written would be lost.
        if path and "w" not in rights and str(Path(path[0]).parent) in folders:
            start, end = span.split("-")
            yield int(start, 16), int(end, 16)
