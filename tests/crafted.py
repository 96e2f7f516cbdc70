"""Artefacts whose contents are wrong though every digest is right."""

import struct
from pathlib import Path

from infra.files import sha256_of
from registry.contracts import MANIFEST_NAME, ArtifactKind, FileEntry
from registry.models.artifacts import read_manifest


def reseal(directory: Path, **changes: object) -> None:
    """Make the manifest agree with the files as they are now."""
    manifest = read_manifest(directory)
    files = {
        name: FileEntry(sha256=sha256_of(directory / name), size=(directory / name).stat().st_size)
        for name in manifest.files
    }
    (directory / MANIFEST_NAME).write_bytes(manifest.model_copy(update={"files": files, **changes}).to_bytes())


def crash_the_reader(paths: dict[ArtifactKind, Path]) -> None:
    """Make a ranker whose reader dies of a segmentation fault."""
    model = paths[ArtifactKind.RANKER] / "model.ubj"
    raw = model.read_bytes()
    for side in ("left_children", "right_children"):
        raw = _first_child(raw, side, 2**30)
    model.write_bytes(raw)
    reseal(paths[ArtifactKind.RANKER])


def _first_child(raw: bytes, side: str, child: int) -> bytes:
    """Point a child of the first tree's root somewhere else; the array is a typed one of UBJSON, int32 big-endian."""
    start = raw.index(b"l#L", raw.index(side.encode())) + len(b"l#L") + 8
    return raw[:start] + struct.pack(">i", child) + raw[start + 4 :]
