import numpy as np
import pytest

from registry.errors import InvalidVectors
from registry.models.index_build import (
    IndexConfig,
    IndexKind,
    RecallPoint,
    best_point,
    build_index,
    check_range,
    choose_kind,
    tune,
)

CURVE = tuple(RecallPoint(nprobe, recall, 0.1) for nprobe, recall in ((1, 0.2), (8, 0.7), (64, 0.88), (4096, 0.92)))
CONFIG = IndexConfig(kind=IndexKind.IVF_FP16, nlist=32, target_recall=0.9, recall_at=10, threads=1)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(4).normal(size=(4_000, 16)).astype(np.float32)


def test_the_cheapest_search_that_meets_the_target_is_served() -> None:
    assert best_point(CURVE, 0.7).nprobe == 8


def test_a_target_that_quantisation_puts_out_of_reach_does_not_probe_every_list() -> None:
    assert best_point(CURVE, 0.95).nprobe == 64


def test_without_a_measured_curve_one_list_is_probed() -> None:
    assert best_point((), 0.95).nprobe == 1


def test_a_million_people_are_kept_as_half_floats() -> None:
    sizes = (100, 50_000, 1_000_000, 10_000_000)
    kinds = [IndexKind.FLAT, IndexKind.IVF_FLAT, IndexKind.IVF_FP16, IndexKind.IVF_PQ]
    assert [choose_kind(IndexConfig(), n) for n in sizes] == kinds


def test_half_floats_find_what_floats_find(vectors: np.ndarray) -> None:
    points = {}
    for kind in (IndexKind.IVF_FLAT, IndexKind.IVF_FP16):
        index = build_index(vectors, kind, CONFIG)
        points[kind] = {point.nprobe: point.recall for point in tune(index, vectors, vectors[:100], CONFIG)}
    assert points[IndexKind.IVF_FP16] == pytest.approx(points[IndexKind.IVF_FLAT], abs=0.002)


def test_between_too_few_lists_and_enough_the_fewest_are_looked_for(vectors: np.ndarray) -> None:
    said: list[str] = []
    index = build_index(vectors, CONFIG.kind, CONFIG, said.append)
    curve = tune(index, vectors, vectors[:100], CONFIG, said.append)
    probes = [point.nprobe for point in curve]
    best = best_point(curve, 0.9)
    assert probes == sorted(set(probes))
    assert best.recall >= 0.9
    missed = max(point.nprobe for point in curve if point.recall < 0.9)
    assert best.nprobe - missed < max(best.nprobe // 3, 2)
    assert said[0] == "32 lists formed by k-means"
    assert said[1] == "4000 of 4000 people added"
    assert any(what.startswith(f"recall {best.recall:.3f} at nprobe {best.nprobe}") for what in said)


@pytest.mark.parametrize("scale", [1e5, 1e-5])
def test_numbers_that_half_floats_cannot_hold_are_refused(vectors: np.ndarray, scale: float) -> None:
    check_range(vectors, IndexKind.IVF_FP16)
    check_range(vectors * np.float32(scale), IndexKind.IVF_FLAT)
    with pytest.raises(InvalidVectors, match="choose ivf_flat"):
        check_range(vectors * np.float32(scale), IndexKind.IVF_FP16)
