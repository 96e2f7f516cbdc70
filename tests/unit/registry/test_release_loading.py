"""A release is loaded whole and proven, or refused with the reason."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from registry.contracts import ArtifactKind, ReleaseVersions
from registry.errors import CorruptArtifact, FeatureSchemaMismatch, IncoherentRelease, UnsupportedArtifact
from registry.models.artifacts import read_manifest
from registry.release import Release, load_release
from tests.crafted import reseal
from tests.releases import FEATURES, SCHEMA, digest_of, make_embedding, make_index, write_release

EMBEDDING, INDEX, RANKER = ArtifactKind
VERSIONS = ReleaseVersions(1, 1, 1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[ArtifactKind, Path], dict[ArtifactKind, Path]]:
    root = tmp_path_factory.mktemp("releases")
    return write_release(root, 0), write_release(root, 1)


def load(paths: dict[ArtifactKind, Path], **kwargs: object) -> Release:
    arguments = {"feature_schema": SCHEMA, "feature_names": FEATURES, **kwargs}
    return load_release(paths, VERSIONS, **arguments)  # type: ignore[arg-type]


def test_a_coherent_release_loads_and_works(written: tuple[dict[ArtifactKind, Path], ...]) -> None:
    release = load(written[0], expected_digests={kind: digest_of(path) for kind, path in written[0].items()})
    assert release.release_id == "e1-i1-r1"
    assert release.manifests[INDEX].lineage["embedding_digest"] == release.manifests[EMBEDDING].digest


def test_an_index_of_another_embedding_is_refused(written: tuple[dict[ArtifactKind, Path], ...]) -> None:
    with pytest.raises(IncoherentRelease, match="The index was built from embedding"):
        load({**written[0], EMBEDDING: written[1][EMBEDDING]})


def test_a_ranker_of_another_embedding_is_welcome(written: tuple[dict[ArtifactKind, Path], ...]) -> None:
    load({**written[0], RANKER: written[1][RANKER]})


def test_a_ranker_of_another_schema_is_refused(written: tuple[dict[ArtifactKind, Path], ...]) -> None:
    with pytest.raises(IncoherentRelease, match="of another feature schema than is offered"):
        load(written[0], feature_schema="f" * 64)
    with pytest.raises(FeatureSchemaMismatch, match="`score_forward` first"):
        load(written[0], feature_names=FEATURES[1:])


def test_artefacts_in_the_wrong_place_are_refused(written: tuple[dict[ArtifactKind, Path], ...]) -> None:
    with pytest.raises(UnsupportedArtifact, match="kind `index`"):
        load({**written[0], RANKER: written[0][INDEX]})


def test_other_bytes_than_the_registry_promised_are_refused(written: tuple[dict[ArtifactKind, Path], ...]) -> None:
    with pytest.raises(CorruptArtifact, match="expected"):
        load(written[0], expected_digests={RANKER: digest_of(written[1][RANKER])})


@pytest.mark.parametrize("kind", list(ArtifactKind), ids=str)
def test_any_damaged_file_refuses_the_whole_release(
    kind: ArtifactKind, written: tuple[dict[ArtifactKind, Path], ...], tmp_path: Path
) -> None:
    for name in read_manifest(written[0][kind]).files:
        damaged = shutil.copytree(written[0][kind], tmp_path / name)
        content = bytearray((damaged / name).read_bytes())
        content[len(content) // 2] ^= 0x40
        (damaged / name).write_bytes(content)
        with pytest.raises(CorruptArtifact, match=name.replace(".", r"\.")):
            load({**written[0], kind: damaged})


def test_an_index_that_lies_about_its_embedding_is_caught_by_its_factors(
    written: tuple[dict[ArtifactKind, Path], ...], tmp_path: Path
) -> None:
    claimed = digest_of(written[0][EMBEDDING])
    make_index(make_embedding(7)).save(tmp_path / "liar", {"embedding_digest": claimed})
    with pytest.raises(IncoherentRelease, match="built from other factors"):
        load({**written[0], INDEX: tmp_path / "liar"})


def test_an_index_with_factors_brought_up_to_date_is_welcome_if_it_says_so(
    written: tuple[dict[ArtifactKind, Path], ...], tmp_path: Path
) -> None:
    lineage = {"embedding_digest": digest_of(written[0][EMBEDDING])}
    fresh = make_embedding(0)
    fresh.chosen[:20] *= 3.0
    make_index(fresh).save(tmp_path / "silent", lineage)
    with pytest.raises(IncoherentRelease, match="17% of its factors are not the embedding's, and 0% were refreshed"):
        load({**written[0], INDEX: tmp_path / "silent"})
    replace(make_index(fresh), refreshed_factors=20).save(tmp_path / "frank", lineage)
    assert load({**written[0], INDEX: tmp_path / "frank"}).index.refreshed_factors == 20


def test_an_index_of_before_tells_among_its_metrics_how_many_factors_were_refreshed(
    written: tuple[dict[ArtifactKind, Path], ...], tmp_path: Path
) -> None:
    lineage = {"embedding_digest": digest_of(written[0][EMBEDDING])}
    manifest = make_index(make_embedding(0)).save(tmp_path / "i", lineage, metrics={"index_refreshed_factors": 20.0})
    reseal(tmp_path / "i", parameters={k: v for k, v in manifest.parameters.items() if k != "refreshed_factors"})
    assert load({**written[0], INDEX: tmp_path / "i"}).index.refreshed_factors == 20


def test_an_index_that_forgot_its_answers_is_refused(
    written: tuple[dict[ArtifactKind, Path], ...], tmp_path: Path
) -> None:
    index = make_index(make_embedding(0))
    wrong = type(index)(index.index, index.user_ids, index.kind, index.canary_queries, index.canary_ids[::-1].copy())
    wrong.save(tmp_path / "i", {"embedding_digest": digest_of(written[0][EMBEDDING])})
    with pytest.raises(IncoherentRelease, match="canary queries agree"):
        load({**written[0], INDEX: tmp_path / "i"})


def test_an_index_of_another_width_or_of_nobody_is_refused(
    written: tuple[dict[ArtifactKind, Path], ...], tmp_path: Path
) -> None:
    from registry.models.item_index import ItemIndex

    lineage = {"embedding_digest": digest_of(written[0][EMBEDDING])}
    ItemIndex.build(np.arange(1, 9), np.eye(8, 6, dtype=np.float32))[0].save(tmp_path / "narrow", lineage)
    with pytest.raises(IncoherentRelease, match="width 6"):
        load({**written[0], INDEX: tmp_path / "narrow"})
    ItemIndex.build(np.empty(0, np.int64), np.empty((0, 8), np.float32))[0].save(tmp_path / "empty", lineage)
    with pytest.raises(IncoherentRelease, match="holds nobody"):
        load({**written[0], INDEX: tmp_path / "empty"})
