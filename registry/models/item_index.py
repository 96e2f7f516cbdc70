"""The index artefact: everybody's reciprocal vector in FAISS, searched by inner product.

FAISS answers nonsense politely: filler ids, infinite scores, out-of-bounds reads for a wrong width. So every query is
checked before and every answer after; what leaves this module is known people with finite scores, best first.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from registry.contracts import ArtifactKind, Manifest
from registry.errors import CorruptArtifact, InvalidQuery, InvalidVectors
from registry.models.arrays import Floats, Ids, npy_writer, npz_writer, read_npy, read_npz
from registry.models.artifacts import FileWriter, verify_artifact, write_artifact
from registry.models.index_build import (
    BuildReport,
    IndexConfig,
    IndexKind,
    RecallPoint,
    Tell,
    best_point,
    build_index,
    check_range,
    choose_kind,
    tune,
    unheard,
)

__all__ = ["BuildReport", "IndexConfig", "IndexKind", "ItemIndex", "RecallPoint"]

MAX_N: Final = 10_000
_INDEX: Final = "index.faiss"
_USER_IDS: Final = "user_ids.npy"
_CANARY: Final = "canary.npz"
_FINGERPRINTS: Final = "fingerprints.npy"
_REFRESHED: Final = "refreshed_factors"
_CANARY_QUERIES: Final = 16
_CANARY_DEPTH: Final = 10
_MORE_PROBES: Final = 8
_FILLED: Final = 8
_BLOCK: Final = 65_536
# Larger than this is not a factor but a fault, and its products could overflow.
_MAX_MAGNITUDE: Final = 1e12
_MAX_INDEX_BYTES: Final = 64 * 2**30
# IFC maps flat codes as well; without it a flat index is copied into every worker. The table is for L2 only.
_READ_FLAGS: Final = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE


@dataclass(frozen=True)
class ItemIndex:
    """A FAISS index over the people `user_ids` int64[n], in that order, and queries with known answers.

    `canary_queries` float32[m, 2d] and `canary_ids` int64[m, depth] were answered when it was built. `fingerprints`
    uint64[n] say of which profile a vector was made, 0 of those that were fitted; None where nobody noted it.
    `refreshed_factors` counts the factors, P and Q, that were solved anew since the embedding was fitted.
    """

    index: Any
    user_ids: Ids
    kind: IndexKind
    canary_queries: Floats
    canary_ids: Ids
    threads: int = 1
    fingerprints: NDArray[np.uint64] | None = None
    refreshed_factors: int = 0

    @property
    def width(self) -> int:
        """Return 2d, the length of a query."""
        return int(self.index.d)

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def addresses(self) -> list[int]:
        """Return where ids and lists lie in memory; a flat index is too small to matter."""
        arrays = [array.ctypes.data for array in (self.user_ids, self.fingerprints) if array is not None]
        lists = getattr(self.index, "invlists", None)
        if lists is None:
            return arrays
        first = next((at for at in range(lists.nlist) if lists.list_size(at)), None)
        return arrays if first is None else [*arrays, int(lists.get_codes(first))]

    def positions(self, user_ids: Ids) -> Ids:
        """Return where each person stands in `user_ids`, int64[m], -1 for people who are not in the index."""
        if not len(self):
            return np.full(len(user_ids), -1, dtype=np.int64)
        order, ascending = self._by_id
        found = np.minimum(np.searchsorted(ascending, user_ids), len(ascending) - 1)
        return np.where(ascending[found] == user_ids, order[found], -1).astype(np.int64, copy=False)

    def vectors(self, positions: Ids) -> Floats:
        """Return what the index holds of the people at `positions`, float32[m, 2d], as exactly as it is kept.

        Not while others search: an index in lists notes where everybody is first, and forgets it afterwards.
        """
        if self.kind is IndexKind.FLAT:
            return np.asarray(self.index.reconstruct_batch(positions), dtype=np.float32)
        self.index.make_direct_map()
        try:
            return np.asarray(self.index.reconstruct_batch(positions), dtype=np.float32)
        finally:
            self.index.set_direct_map_type(faiss.DirectMap.NoMap)  # type: ignore[attr-defined]

    @cached_property
    def _by_id(self) -> tuple[Ids, Ids]:
        order = np.argsort(self.user_ids, kind="stable")
        return order, np.asarray(self.user_ids[order])

    @classmethod
    def build(
        cls,
        user_ids: Ids,
        vectors: Floats,
        config: IndexConfig | None = None,
        queries: Floats | None = None,
        *,
        fingerprints: NDArray[np.uint64] | None = None,
        tell: Tell = unheard,
    ) -> tuple[Self, BuildReport]:
        """Build over float32[n, 2d] vectors and tune `nprobe` on float32[m, 2d] sample queries.

        Without queries a seeded sample of the vectors stands in for them. Raises InvalidVectors for NaN, infinity,
        misaligned or repeated ids.
        """
        config = config or IndexConfig()
        ids, rows = _checked_vectors(user_ids, vectors)
        if fingerprints is not None and fingerprints.shape != ids.shape:
            raise InvalidVectors(f"There are {fingerprints.shape} fingerprints for {len(ids)} people: they must align.")
        sample = _sample_queries(rows, queries, config.seed)
        kind = choose_kind(config, len(rows))
        check_range(rows, kind)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(config.threads)
        try:
            began = time.perf_counter()
            index = build_index(rows, kind, config, tell)
            built = time.perf_counter()
            curve = tune(index, rows, sample, config, tell)
            tuned = time.perf_counter()
        finally:
            faiss.omp_set_num_threads(threads)
        best = best_point(curve, config.target_recall)
        if kind is not IndexKind.FLAT:
            index.nprobe = best.nprobe
        canaries = sample[:_CANARY_QUERIES]
        bare = cls(index, ids, kind, np.empty((0, rows.shape[1]), np.float32), np.empty((0, 0), np.int64))
        answers = (
            bare.search_many(canaries, min(_CANARY_DEPTH, len(ids)))[0]
            if len(ids) and len(canaries)
            else np.empty((0, 0), np.int64)
        )
        built_index = cls(
            index,
            ids,
            kind,
            canaries if answers.size else bare.canary_queries,
            answers,
            fingerprints=fingerprints,
        )
        return built_index, BuildReport(
            kind=kind,
            people=len(ids),
            dimensions=rows.shape[1],
            nlist=int(getattr(index, "nlist", 1)),
            nprobe=best.nprobe,
            recall=best.recall,
            recall_at=min(config.recall_at, max(len(ids), 1)),
            search_ms=best.search_ms,
            build_s=built - began,
            tune_s=tuned - built,
            index_bytes=_size_of(index),
            reached=best.recall >= config.target_recall,
            curve=curve,
        )

    def search(self, query: Floats, n: int) -> tuple[Ids, Floats]:
        """Return the ids int64[<=n] and scores float32[<=n] of the best people for one query float32[2d], best first.

        Raises InvalidQuery for a wrong width, a value that is not finite, or `n` outside 1..10,000.
        """
        row = np.asarray(query, dtype=np.float32)
        # A long list whose end lies in lists that were not probed is better short than late.
        found, scores = self._searched(
            self._checked_queries(row.reshape(1, -1), n), n, at_least=n // _FILLED if n < len(self) else n
        )
        there = found[0] >= 0
        return self.user_ids[found[0][there]], scores[0][there]

    def search_many(self, queries: Floats, n: int) -> tuple[Ids, Floats]:
        """Return ids int64[m, min(n, size)] and scores float32 of the same shape; every place holds a real person."""
        rows = self._checked_queries(queries, n)
        found, scores = self._searched(rows, n, at_least=n)
        if (found < 0).any():
            raise InvalidQuery("The index answered with filler: the query is out of its range.")
        return np.asarray(self.user_ids[found], dtype=np.int64), scores

    def _searched(self, rows: Floats, n: int, at_least: int) -> tuple[Ids, Floats]:
        """Return positions int64[m, depth] and scores; `at_least` so many first places (or all) are no filler."""
        depth = min(n, len(self.user_ids))
        if not depth or not len(rows):
            return np.empty((len(rows), 0), dtype=np.int64), np.empty((len(rows), 0), dtype=np.float32)
        last = min(max(at_least, 1), depth) - 1
        faiss.omp_set_num_threads(self.threads)
        scores, found = self.index.search(rows, depth)
        probes = int(getattr(self.index, "nprobe", 0))
        while probes and len(short := np.flatnonzero(found[:, last] < 0)) and probes < self.index.nlist:
            # The probed lists held too few people: probe more of them rather than hand out filler.
            probes = min(_MORE_PROBES * probes, int(self.index.nlist))
            wider = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
            scores[short], found[short] = self.index.search(np.ascontiguousarray(rows[short]), depth, params=wider)
        if (found >= len(self.user_ids)).any() or not np.isfinite(scores[found >= 0]).all():
            raise InvalidQuery("The index answered with nobody or infinite scores: the query is out of its range.")
        return found, np.asarray(scores, dtype=np.float32)

    def _checked_queries(self, queries: Floats, n: int) -> Floats:
        if not 1 <= n <= MAX_N:
            raise InvalidQuery(f"{n} candidates were asked for, the index gives 1 to {MAX_N}.")
        rows = np.ascontiguousarray(queries, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise InvalidQuery(f"The query has shape {rows.shape}, this index answers vectors of width {self.width}.")
        if not np.isfinite(rows).all() or np.abs(rows).max(initial=0.0) > _MAX_MAGNITUDE:
            raise InvalidQuery("The query holds NaN, infinite or absurdly large values, so no search is made.")
        return rows

    def with_threads(self, threads: int) -> Self:
        """Return the same index searched with so many threads: 1 suits single requests, more suits batches."""
        return replace(self, threads=threads)

    def check_canary(self) -> str | None:
        """Answer the queries with known answers; return what is wrong, or None."""
        if not self.canary_ids.size:
            return None
        ids, _ = self.search_many(self.canary_queries, self.canary_ids.shape[1])
        agreed = np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(ids, self.canary_ids, strict=True)])
        if agreed < 0.9:
            return f"its canary queries agree with their known answers only to {agreed:.0%}"
        return None

    def to_bytes(self) -> NDArray[np.uint8]:
        """Serialise the FAISS part."""
        return np.asarray(faiss.serialize_index(self.index), dtype=np.uint8)

    def save(
        self,
        directory: Path,
        lineage: Mapping[str, str],
        parameters: Mapping[str, JsonValue] | None = None,
        metrics: Mapping[str, float] | None = None,
        beside: Mapping[str, FileWriter] | None = None,
    ) -> Manifest:
        """Write the artefact; `lineage["embedding_digest"]` must name the embedding it was built from.

        `beside` writes further files of the same artefact, such as neighbours.
        """
        if not lineage.get("embedding_digest"):
            raise InvalidVectors("An index must name the embedding it was built from in `embedding_digest`.")
        return write_artifact(
            directory,
            ArtifactKind.INDEX,
            {
                _INDEX: lambda path: faiss.write_index(self.index, str(path)),
                _USER_IDS: npy_writer(self.user_ids),
                _CANARY: npz_writer({"queries": self.canary_queries, "ids": self.canary_ids}),
                **({} if self.fingerprints is None else {_FINGERPRINTS: npy_writer(self.fingerprints)}),
                **(beside or {}),
            },
            parameters={
                **(parameters or {}),
                _REFRESHED: self.refreshed_factors,
                "index_kind": self.kind.value,
                "people": len(self),
                "width": self.width,
                "nlist": int(getattr(self.index, "nlist", 1)),
                "nprobe": int(getattr(self.index, "nprobe", 1)),
            },
            metrics=metrics,
            lineage=lineage,
        )

    @classmethod
    def load(
        cls,
        directory: Path,
        expected_digest: str | None = None,
        *,
        threads: int = 1,
        verified: Manifest | None = None,
    ) -> Self:
        """Verify the artefact, then map it read-only, so that workers share its pages."""
        manifest = verified or verify_artifact(directory, expected_digest)
        manifest.expect(ArtifactKind.INDEX)
        user_ids = read_npy(directory / _USER_IDS, np.int64, 1)
        canary = read_npz(directory / _CANARY, {"queries": (np.float32, 2), "ids": (np.int64, 2)})
        index = _read_index(directory / _INDEX)
        if index.ntotal != len(user_ids) or index.d != manifest.parameters.get("width"):
            raise CorruptArtifact(
                f"`{directory}` holds {index.ntotal} vectors of width {index.d} for {len(user_ids)} people: "
                "its files do not belong together."
            )
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptArtifact(f"`{directory / _INDEX}` does not search by inner product: build it again.")
        try:
            kind = IndexKind(str(manifest.parameters.get("index_kind")))
        except ValueError as error:
            raise CorruptArtifact(f"`{directory}` has an unknown kind of index in its manifest: {error}.") from error
        fingerprints = None
        if _FINGERPRINTS in manifest.files:
            fingerprints = read_npy(directory / _FINGERPRINTS, np.uint64, 1)
            if len(fingerprints) != len(user_ids):
                raise CorruptArtifact(
                    f"`{directory}` holds {len(fingerprints)} fingerprints of {len(user_ids)} people."
                )
        # Indexes of before this parameter told it among their metrics.
        told = manifest.parameters.get(_REFRESHED, manifest.metrics.get(f"index_{_REFRESHED}", 0))
        refreshed = int(told) if isinstance(told, int | float) else 0
        return cls(index, user_ids, kind, canary["queries"], canary["ids"], threads, fingerprints, refreshed)


def _read_index(path: Path) -> Any:
    size = path.stat().st_size
    if size > _MAX_INDEX_BYTES:
        raise CorruptArtifact(f"`{path}` is larger than {_MAX_INDEX_BYTES} bytes: shard the index.")
    faiss.set_deserialization_vector_byte_limit(max(4 * size, 2**20))
    try:
        return faiss.read_index(str(path), _READ_FLAGS)
    except RuntimeError as error:
        raise CorruptArtifact(f"`{path}` is not a FAISS index: build it again.") from error
    finally:
        faiss.set_deserialization_vector_byte_limit(_MAX_INDEX_BYTES)


def _checked_vectors(user_ids: Ids, vectors: Floats) -> tuple[Ids, Floats]:
    ids = np.ascontiguousarray(user_ids, dtype=np.int64)
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or ids.shape != (len(rows),) or not rows.shape[1]:
        raise InvalidVectors(f"There are {ids.shape} ids for vectors of shape {rows.shape}: they must align.")
    for start in range(0, len(rows), _BLOCK):  # a mask of a million people would take as much as a small index
        part = rows[start : start + _BLOCK]
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            bad = int(ids[start + int(np.flatnonzero(~finite)[0])])
            raise InvalidVectors(f"The vector of person {bad} is not finite: fit the embedding again before indexing.")
        if max(float(part.max(initial=0.0)), -float(part.min(initial=0.0))) > _MAX_MAGNITUDE:
            raise InvalidVectors("A vector is absurdly large: fit the embedding again before indexing.")
    if len(np.unique(ids)) != len(ids) or (len(ids) and int(ids.min()) <= 0):
        raise InvalidVectors("The ids of an index must be positive and unique.")
    return ids, rows


def _size_of(index: Any) -> int:
    # Counted, not serialised: at a million people that would take the memory of another index.
    nlist = int(getattr(index, "nlist", 0))
    return int(index.ntotal) * (int(index.code_size) + (8 if nlist else 0)) + nlist * int(index.d) * 4


def _sample_queries(vectors: Floats, queries: Floats | None, seed: int) -> Floats:
    if queries is None:
        rng = np.random.default_rng(seed)
        rows = rng.choice(len(vectors), size=min(200, len(vectors)), replace=False)
        return np.ascontiguousarray(vectors[rows])
    sample = np.ascontiguousarray(queries, dtype=np.float32)
    if sample.ndim != 2 or sample.shape[1] != vectors.shape[1] or not np.isfinite(sample).all():
        raise InvalidVectors(f"The sample queries have shape {sample.shape} or are not finite.")
    return sample
