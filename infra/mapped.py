"""Lets go of mapped files without standing still.

Unmapping a file takes as long as the pages that were touched, 5 ms for a quarter of a gigabyte, and no Python runs
meanwhile. When its pages are forgotten first, a few at a time and without the interpreter's lock, little is left to do.
"""

import ctypes
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_AT_ONCE: Final = 2**22


def forget_pages(addresses: Iterable[int]) -> int:
    """Forget the pages of the files, mapped read-only, in which `addresses` lie; return how many bytes those span.

    Whoever reads them finds them again. The caller keeps what lies there from being unmapped meanwhile: the place could
    become somebody else's memory. Does nothing where the system cannot tell what is mapped.
    """
    if not _MAPS.exists():
        return 0
    libc = ctypes.CDLL(None, use_errno=True)  # its calls leave the interpreter's lock
    spans = list(_mapped(list(addresses)))
    for start, end in spans:
        for address in range(start, end, _AT_ONCE):
            length = min(_AT_ONCE, end - address)
            libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
    return sum(end - start for start, end in spans)


def _mapped(addresses: Sequence[int]) -> Iterator[tuple[int, int]]:
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, rights, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(edge, 16) for edge in span.split("-"))
        # Of memory without a file, and of a page that may be written to, what was written would be lost.
        if path and path[0].startswith("/") and "w" not in rights and any(start <= one < end for one in addresses):
            yield start, end
