"""The index: right answers, measured recall, and no polite nonsense."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.mapped import forget_pages
from registry.errors import CorruptArtifact, InvalidQuery, InvalidVectors
from registry.models.item_index import IndexConfig, IndexKind, ItemIndex
from tests.releases import make_embedding, make_index
from tests.resident import only_where_told, resident_kb

N, WIDTH = 3_000, 16


def world(seed: int = 0, n: int = N) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    popularity = rng.lognormal(sigma=0.4, size=(n, 1))
    vectors = popularity * (rng.normal(size=(n, 6)) @ rng.normal(size=(6, WIDTH)) + 0.2 * rng.normal(size=(n, WIDTH)))
    return np.arange(10, 10 + n, dtype=np.int64), vectors.astype(np.float32)


KINDS = [IndexKind.FLAT, IndexKind.IVF_FLAT, IndexKind.IVF_FP16, IndexKind.IVF_SQ8, IndexKind.IVF_PQ]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def built(request: pytest.FixtureRequest) -> ItemIndex:
    ids, vectors = world(n=1_500 if request.param is IndexKind.IVF_PQ else N)
    return ItemIndex.build(ids, vectors, IndexConfig(kind=request.param, nlist=16, threads=1), vectors[:50])[0]


def test_the_best_inner_product_comes_first() -> None:
    ids, vectors = world()
    index, report = ItemIndex.build(ids, vectors, IndexConfig(threads=1))
    assert report.kind is IndexKind.FLAT
    assert report.recall == 1.0
    query = vectors[5]
    found, scores = index.search(query, 7)
    exact = np.argsort(-(vectors @ query))[:7]
    assert found.tolist() == ids[exact].tolist()
    np.testing.assert_allclose(scores, (vectors @ query)[exact], rtol=1e-4)


def test_a_camp_finds_its_own_kind() -> None:
    embedding = make_embedding()
    found, _ = make_index(embedding).search(np.concatenate([embedding.chooser[0], embedding.chosen[0]]) / 2, 30)
    assert (found % 2 == 1).all()


@pytest.mark.parametrize("kind", [IndexKind.IVF_FLAT, IndexKind.IVF_FP16, IndexKind.IVF_SQ8], ids=str)
def test_nprobe_is_tuned_to_the_target_recall(kind: IndexKind) -> None:
    ids, vectors = world()
    config = IndexConfig(kind=kind, target_recall=0.9, recall_at=50, threads=1)
    index, report = ItemIndex.build(ids, vectors, config, vectors[::20])
    assert report.reached
    assert report.recall >= 0.9
    assert report.nprobe < report.nlist, "cheaper than looking everywhere"
    assert [point.nprobe for point in report.curve] == sorted({point.nprobe for point in report.curve})
    assert index.index.nprobe == report.nprobe
    assert report.index_bytes == pytest.approx(len(index.to_bytes()), rel=0.05)
    assert report.metrics()["index_recall_at_50"] == report.recall


def test_lossy_codes_report_that_the_target_was_missed() -> None:
    ids, vectors = world(n=1_500)
    config = IndexConfig(kind=IndexKind.IVF_PQ, nlist=4, target_recall=1.0, threads=1)
    _, report = ItemIndex.build(ids, vectors, config, vectors[:40])
    assert not report.reached
    assert report.recall == max(point.recall for point in report.curve)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    ids, vectors = world()
    config = IndexConfig(kind=IndexKind.IVF_SQ8, threads=2)
    digests = {
        ItemIndex.build(ids, vectors, config)[0].save(tmp_path / name, {"embedding_digest": "e"}).digest
        for name in ("a", "b")
    }
    assert len(digests) == 1


def test_a_loaded_index_answers_the_same(built: ItemIndex, tmp_path: Path) -> None:
    manifest = built.save(tmp_path / "i", {"embedding_digest": "e"})
    loaded = ItemIndex.load(tmp_path / "i", manifest.digest)
    queries = built.canary_queries
    assert np.array_equal(loaded.search_many(queries, 20)[0], built.search_many(queries, 20)[0])
    assert loaded.kind is built.kind
    assert loaded.check_canary() is None
    assert isinstance(loaded.user_ids.base, np.memmap)  # its pages are shared by all processes


@only_where_told
def test_a_loaded_index_whose_pages_are_forgotten_answers_the_same(built: ItemIndex, tmp_path: Path) -> None:
    loaded = ItemIndex.load(tmp_path / "i", built.save(tmp_path / "i", {"embedding_digest": "e"}).digest)
    queries = built.canary_queries
    before = loaded.search_many(queries, 20)[0]
    left_kb = 0 if built.kind is not IndexKind.FLAT else (tmp_path / "i" / "index.faiss").stat().st_size // 1024 + 4
    assert (resident_kb(tmp_path / "i") or 0) > left_kb
    forget_pages(loaded.addresses)
    assert (resident_kb(tmp_path / "i") or 0) <= left_kb
    assert np.array_equal(loaded.search_many(queries, 20)[0], before)


def test_asking_for_more_than_there_is_gives_everybody_once(built: ItemIndex) -> None:
    found, scores = built.search(built.canary_queries[0], 10_000)
    assert sorted(found.tolist()) == built.user_ids.tolist()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30], ids=str)
def test_a_query_that_is_not_a_factor_is_refused(built: ItemIndex, value: float) -> None:
    query = np.zeros(WIDTH, np.float32)
    query[3] = value
    with pytest.raises(InvalidQuery, match="no search is made"):
        built.search(query, 5)


@pytest.mark.parametrize("width", [0, 1, WIDTH - 1, WIDTH + 1])
def test_a_query_of_another_width_is_refused(built: ItemIndex, width: int) -> None:
    with pytest.raises(InvalidQuery, match="width"):
        built.search(np.zeros(width, np.float32), 5)


@pytest.mark.parametrize("n", [0, -1, 10_001, 2_000_000])
def test_n_outside_its_bounds_is_refused(built: ItemIndex, n: int) -> None:
    with pytest.raises(InvalidQuery, match="1 to 10000"):
        built.search(np.zeros(WIDTH, np.float32), n)


def test_an_empty_index_finds_nobody(tmp_path: Path) -> None:
    index, report = ItemIndex.build(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    assert report.people == 0
    assert index.search(np.ones(4, np.float32), 5)[0].size == 0
    index.save(tmp_path / "i", {"embedding_digest": "e"})
    assert ItemIndex.load(tmp_path / "i").search(np.ones(4, np.float32), 5)[0].size == 0


def test_a_handful_of_people_is_searched_exactly_whatever_was_configured() -> None:
    ids, vectors = world(n=30)
    index, report = ItemIndex.build(ids, vectors, IndexConfig(kind=IndexKind.IVF_PQ))
    assert report.kind is IndexKind.FLAT
    assert len(index.search(vectors[0], 100)[0]) == 30


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20], ids=str)
def test_a_vector_that_is_not_a_factor_stops_the_build(value: float) -> None:
    ids, vectors = world(n=100)
    vectors[17, 2] = value
    with pytest.raises(InvalidVectors, match=r"person 27|absurdly large"):
        ItemIndex.build(ids, vectors)


def test_ids_must_be_unique_positive_and_aligned() -> None:
    ids, vectors = world(n=100)
    for wrong in (np.ones(100, np.int64), ids - 10, ids[:-1]):
        with pytest.raises(InvalidVectors, match="ids"):
            ItemIndex.build(wrong, vectors)


def test_an_index_must_name_its_embedding(built: ItemIndex, tmp_path: Path) -> None:
    with pytest.raises(InvalidVectors, match="embedding_digest"):
        built.save(tmp_path / "i", {})


def test_files_that_do_not_belong_together_are_refused(built: ItemIndex, tmp_path: Path) -> None:
    from registry.models.artifacts import read_manifest

    built.save(tmp_path / "i", {"embedding_digest": "e"})
    other, _ = ItemIndex.build(*world(n=100))
    other.save(tmp_path / "other", {"embedding_digest": "e"})
    shutil.copy(tmp_path / "other" / "index.faiss", tmp_path / "i" / "index.faiss")
    with pytest.raises(CorruptArtifact, match=r"index\.faiss"):
        ItemIndex.load(tmp_path / "i")
    with pytest.raises(CorruptArtifact, match="do not belong together"):
        ItemIndex.load(tmp_path / "i", verified=read_manifest(tmp_path / "i"))


@pytest.mark.parametrize("content", [b"", b"rubbish", b"IxFI" + b"\xff" * 60], ids=["empty", "text", "header"])
def test_what_is_not_an_index_is_refused_even_when_its_digest_holds(tmp_path: Path, content: bytes) -> None:
    from registry.contracts import ArtifactKind
    from registry.models.arrays import npy_writer, npz_writer
    from registry.models.artifacts import write_artifact

    write_artifact(
        tmp_path / "i",
        ArtifactKind.INDEX,
        {
            "index.faiss": lambda path: path.write_bytes(content) and None,
            "user_ids.npy": npy_writer(np.arange(1, 4)),
            "canary.npz": npz_writer({"queries": np.zeros((0, 2), np.float32), "ids": np.zeros((0, 0), np.int64)}),
        },
        parameters={"width": 2, "index_kind": "flat"},
    )
    with pytest.raises(CorruptArtifact, match="not a FAISS index"):
        ItemIndex.load(tmp_path / "i")
