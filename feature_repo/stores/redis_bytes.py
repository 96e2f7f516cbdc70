"""Commands and replies of Redis as bytes, and packed rows and event times as the bytes of Feast's protobufs."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from numpy.typing import NDArray

from feature_repo.errors import MalformedFeatures

Float32 = NDArray[np.float32]


def command(*parts: bytes | str) -> bytes:
    """Return one command as Redis reads it."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in raw)


def commands(name: str, keys: Iterable[bytes], fields: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the same command for many keys."""
    head = b"*%d\r\n$%d\r\n%s\r\n" % (len(fields) + 2, len(name), name.encode())
    tail = b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in fields)
    for key in keys:
        yield b"%s$%d\r\n%s\r\n%s" % (head, len(key), key, tail)


@lru_cache(maxsize=64)
def _prefix(width: int) -> bytes:
    """Return the bytes that stand before the floats in a serialised Value of `width` floats."""
    value = Value(float_list_val=FloatList(val=[0.0] * width)).SerializeToString()
    prefix: bytes = value[: len(value) - 4 * width]
    return prefix


def packed(rows: Float32) -> list[bytes]:
    """Return float32[n, k] as n serialised lists of floats."""
    prefix = _prefix(rows.shape[1])
    raw, size = np.ascontiguousarray(rows, dtype="<f4").tobytes(), 4 * rows.shape[1]
    return [prefix + raw[start : start + size] for start in range(0, len(raw), size)]


def unpacked(values: list[bytes], width: int, view: str) -> Float32:
    """Return serialised lists of `width` floats as float32[n, width]; raises MalformedFeatures."""
    prefix = _prefix(width)
    size = len(prefix) + 4 * width
    if len(values) == 1 and len(values[0]) == size and values[0].startswith(prefix):
        return np.frombuffer(values[0], dtype="<f4", offset=len(prefix)).reshape(1, width).copy()
    raw = b"".join(values)
    if len(raw) != size * len(values):
        raise MalformedFeatures(f"The online rows of {view} do not have {width} values: materialise them again.")
    table = np.frombuffer(raw, dtype=np.uint8).reshape(len(values), size)
    if not np.all(table[:, : len(prefix)] == np.frombuffer(prefix, dtype=np.uint8)):
        raise MalformedFeatures(f"The online rows of {view} do not have {width} values: materialise them again.")
    return np.ascontiguousarray(table[:, len(prefix) :]).view("<f4").astype(np.float32, copy=False)


class Times:
    """Event times to and from protobuf; few distinct ones occur, so each is converted once."""

    def __init__(self) -> None:
        self._micros: dict[bytes, int] = {}
        self._stamps: dict[int, bytes] = {}

    def micros(self, stamp: bytes | None) -> int:
        """Return microseconds since 1970, -1 for a missing stamp."""
        if not stamp:
            return -1
        known = self._micros.get(stamp)
        if known is None:
            parsed = Timestamp.FromString(stamp)
            known = self._micros[stamp] = parsed.seconds * 1_000_000 + parsed.nanos // 1000
        return known

    def stamp(self, micros: int) -> bytes:
        """Return the serialised protobuf timestamp."""
        known = self._stamps.get(micros)
        if known is None:
            seconds, rest = divmod(micros, 1_000_000)
            known = self._stamps[micros] = Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString()
        return known
