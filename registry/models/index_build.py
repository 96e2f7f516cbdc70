"""How an index is chosen, clustered and tuned: kind by size, `nprobe` by recall measured against exact search.

Lists are formed by plain k-means and probed by inner product. Assigning by inner product instead would send
everything to the few centroids of largest norm.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from registry.errors import InvalidVectors
from registry.models.arrays import Floats

FLAT_BELOW: Final = 20_000
IVF_FLAT_BELOW: Final = 200_000
IVF_FP16_BELOW: Final = 5_000_000
_POINTS_PER_LIST: Final = 64
_MIN_POINTS_PER_LIST: Final = 39
_MAX_SAMPLE_QUERIES: Final = 1_000
_PLATEAU: Final = 0.002
_PLATEAU_FROM: Final = 16
_HALF_LARGEST, _HALF_SMALLEST = 65_504.0, 1e-3
_HALVINGS: Final = 2
_ADDED_AT_ONCE: Final = 65_536
Tell = Callable[[str], None]
"""Hears what a build has just done."""


class IndexKind(StrEnum):
    """How vectors are kept: exactly, or in lists as floats, half floats, bytes or product-quantised codes.

    Half floats find what floats find in half the memory, and faster; bytes take half of that again and lose a few per
    cent of the recall for good.
    """

    AUTO = "auto"
    FLAT = "flat"
    IVF_FLAT = "ivf_flat"
    IVF_FP16 = "ivf_fp16"
    IVF_SQ8 = "ivf_sq8"
    IVF_PQ = "ivf_pq"


class IndexConfig(BaseModel):
    """What to build and how good it must be; `auto` chooses the kind by the number of people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: IndexKind = Field(default=IndexKind.AUTO, description="auto, flat, ivf_flat, ivf_fp16, ivf_sq8, ivf_pq")
    nlist: int | None = Field(default=None, ge=1, le=1_000_000, description="lists of an IVF index; default 4*sqrt(n)")
    target_recall: float = Field(default=0.95, gt=0, le=1, description="recall@recall_at to reach by tuning nprobe")
    recall_at: int = Field(default=100, ge=1, le=10_000, description="depth at which recall is measured")
    train_iterations: int = Field(default=10, ge=1, le=100, description="k-means iterations")
    threads: int = Field(default=2, ge=1, le=256, description="threads of the build")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="seed of clustering and sampling")


@dataclass(frozen=True)
class RecallPoint:
    """Recall and milliseconds per query (one thread, one query at a time) at one `nprobe`."""

    nprobe: int
    recall: float
    search_ms: float


@dataclass(frozen=True)
class BuildReport:
    """What was built, how good it is and what it cost; `reached` says whether the target recall was met."""

    kind: IndexKind
    people: int
    dimensions: int
    nlist: int
    nprobe: int
    recall: float
    recall_at: int
    search_ms: float
    build_s: float
    tune_s: float
    index_bytes: int
    reached: bool
    curve: tuple[RecallPoint, ...]

    def metrics(self) -> dict[str, float]:
        """Return the figures under names that MLflow accepts."""
        return {
            f"index_recall_at_{self.recall_at}": self.recall,
            "index_search_ms": self.search_ms,
            "index_build_s": self.build_s,
            "index_tune_s": self.tune_s,
            "index_bytes": float(self.index_bytes),
            "index_people": float(self.people),
            "index_nprobe": float(self.nprobe),
        }


def choose_kind(config: IndexConfig, n: int) -> IndexKind:
    """Return the configured kind, or for `auto` the one for this many people; tiny sets are always searched exactly."""
    if n < 2 * _MIN_POINTS_PER_LIST:
        return IndexKind.FLAT
    if config.kind is not IndexKind.AUTO:
        return config.kind
    if n < FLAT_BELOW:
        return IndexKind.FLAT
    if n < IVF_FLAT_BELOW:
        return IndexKind.IVF_FLAT
    return IndexKind.IVF_FP16 if n < IVF_FP16_BELOW else IndexKind.IVF_PQ


def check_range(vectors: Floats, kind: IndexKind) -> None:
    """Raise InvalidVectors where half floats cannot hold these numbers: too large, or all of them too small."""
    if kind is not IndexKind.IVF_FP16 or not vectors.size:
        return
    largest = max(float(vectors.max()), -float(vectors.min()))
    if not _HALF_SMALLEST < largest < _HALF_LARGEST:
        raise InvalidVectors(
            f"The largest number in the vectors is {largest:g}, out of the range of half floats: choose ivf_flat."
        )


def unheard(_what: str) -> None:
    """Tell nobody."""


def build_index(vectors: Floats, kind: IndexKind, config: IndexConfig, tell: Tell = unheard) -> Any:
    """Build a trained and filled FAISS index; the same vectors and config give the same bytes."""
    n, width = vectors.shape
    if kind is IndexKind.FLAT:
        index = faiss.IndexFlatIP(width)
        index.add(vectors)
        return index
    nlist = config.nlist or round(4 * math.sqrt(n))
    nlist = max(1, min(nlist, n // _MIN_POINTS_PER_LIST))
    centroids = _cluster(vectors, nlist, config)
    tell(f"{nlist} lists formed by k-means")
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(centroids)
    index = _ivf(quantizer, width, nlist, kind)
    rng = np.random.default_rng(config.seed)
    sample = rng.choice(n, size=min(n, max(20_000, nlist * 4)), replace=False)
    sample.sort()
    index.train(np.ascontiguousarray(vectors[sample]))
    nearest = faiss.IndexFlatL2(width)
    nearest.add(centroids)
    for start in range(0, n, _ADDED_AT_ONCE):
        part = np.ascontiguousarray(vectors[start : start + _ADDED_AT_ONCE])
        _, assigned = nearest.search(part, 1)
        lists = np.ascontiguousarray(assigned[:, 0])
        ids = np.arange(start, start + len(part), dtype=np.int64)
        index.add_core(len(part), faiss.swig_ptr(part), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
        tell(f"{start + len(part)} of {n} people added")
    return index


def _cluster(vectors: Floats, nlist: int, config: IndexConfig) -> Floats:
    clustering = faiss.Kmeans(
        vectors.shape[1],
        nlist,
        niter=config.train_iterations,
        seed=config.seed,
        max_points_per_centroid=_POINTS_PER_LIST,
        min_points_per_centroid=1,
    )
    clustering.train(vectors)
    return np.ascontiguousarray(clustering.centroids, dtype=np.float32)


def _ivf(quantizer: Any, width: int, nlist: int, kind: IndexKind) -> Any:
    metric = faiss.METRIC_INNER_PRODUCT
    if kind is IndexKind.IVF_FLAT:
        index: Any = faiss.IndexIVFFlat(quantizer, width, nlist, metric)
    elif kind is IndexKind.IVF_FP16:
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(quantizer, width, nlist, half, metric, False)
    elif kind is IndexKind.IVF_SQ8:
        index = faiss.IndexIVFScalarQuantizer(quantizer, width, nlist, faiss.ScalarQuantizer.QT_8bit, metric)
    else:
        if width % 2:
            raise InvalidVectors(f"Product quantisation needs an even width, not {width}.")
        index = faiss.IndexIVFPQ(quantizer, width, nlist, width // 2, 8, metric)
    # The quantizer is trained already; FAISS must neither retrain nor free it under Python's feet.
    quantizer.this.disown()
    index.own_fields = True
    index.quantizer_trains_alone = 1
    index.cp.seed = 1
    return index


def exact_neighbours(vectors: Floats, queries: Floats, depth: int) -> NDArray[np.int64]:
    """Return the rows of the `depth` largest inner products of each query by brute force, int64[m, depth]."""
    _, ids = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(ids, dtype=np.int64)


def tune(
    index: Any, vectors: Floats, queries: Floats, config: IndexConfig, tell: Tell = unheard
) -> tuple[RecallPoint, ...]:
    """Measure recall against exact search for growing `nprobe`, until it meets the target or grows no more.

    Between the last that missed the target and the first that met it a few more are tried: a search costs what it
    probes.
    """
    depth = min(config.recall_at, len(vectors))
    if not depth or not len(queries):
        return ()
    sample = queries[:_MAX_SAMPLE_QUERIES]
    truth = exact_neighbours(vectors, sample, depth)
    tell(f"exact neighbours of {len(sample)} people known")
    if not hasattr(index, "nlist"):
        return (_point(index, 1, sample, truth),)
    curve: list[RecallPoint] = []

    def measure(nprobe: int) -> RecallPoint:
        index.nprobe = nprobe
        curve.append(_point(index, nprobe, sample, truth))
        tell(f"recall {curve[-1].recall:.3f} at nprobe {nprobe}, {curve[-1].search_ms:.2f} ms a search")
        return curve[-1]

    below = 0
    for nprobe in _ladder(int(index.nlist)):
        found = measure(nprobe)
        # Quantisation sets a ceiling: near it, probing every list would cost a hundred times more for nothing.
        is_flat = len(curve) > 1 and nprobe > _PLATEAU_FROM and found.recall - curve[-2].recall < _PLATEAU
        if found.recall >= config.target_recall:
            _narrow(below, nprobe, config.target_recall, measure)
            break
        if is_flat:
            break
        below = nprobe
    return tuple(sorted(curve, key=lambda point: point.nprobe))


def _narrow(below: int, enough: int, target: float, measure: Callable[[int], RecallPoint]) -> None:
    for _ in range(_HALVINGS):
        between = (below + enough) // 2
        if between in {below, enough}:
            return
        if measure(between).recall >= target:
            enough = between
        else:
            below = between


def _point(index: Any, nprobe: int, sample: Floats, truth: NDArray[np.int64]) -> RecallPoint:
    depth = truth.shape[1]
    _, found = index.search(sample, depth)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
    return RecallPoint(nprobe, hits / truth.size, _search_ms(index, sample, depth))


def best_point(curve: tuple[RecallPoint, ...], target: float) -> RecallPoint:
    """Return the cheapest point that meets the target; out of reach, the target is a share of the highest recall."""
    if not curve:
        return RecallPoint(nprobe=1, recall=1.0, search_ms=0.0)
    highest = max(point.recall for point in curve)
    wanted = target if highest >= target else target * highest
    return next(point for point in curve if point.recall >= wanted)


def _ladder(nlist: int) -> list[int]:
    # A factor of about 1.5 between steps: fine enough not to overpay, short enough to measure.
    steps = {1, nlist}
    probe = 1.0
    while probe < nlist:
        steps.add(round(probe))
        probe *= 1.5
    return sorted(steps)


def _search_ms(index: Any, queries: Floats, depth: int) -> float:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        sample = queries[:20]
        began = time.perf_counter()
        for row in range(len(sample)):
            index.search(sample[row : row + 1], depth)
        return (time.perf_counter() - began) * 1_000 / len(sample)
    finally:
        faiss.omp_set_num_threads(threads)
