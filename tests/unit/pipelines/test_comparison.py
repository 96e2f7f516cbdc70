"""A new artefact beside Production's, from their manifests alone."""

from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from pipelines.results.comparison import compared, difference_rows, manifest_of, metric_rows
from registry.contracts import PRODUCTION, TAG_MANIFEST, ArtifactKind, FileEntry, Manifest, ModelVersion

RANKER = ArtifactKind.RANKER


def manifest(kind: ArtifactKind = RANKER, **fields: Any) -> Manifest:
    return Manifest(kind=kind, files={"model.ubj": FileEntry(sha256="a" * 64, size=1)}, **fields)


def platform(*versions: ModelVersion) -> Any:
    standing = {version.kind: version for version in versions}
    return SimpleNamespace(registry=SimpleNamespace(in_stage=lambda stage: standing if stage == PRODUCTION else {}))


def registered(number: int, kept: Manifest | None) -> ModelVersion:
    tags = {} if kept is None else {TAG_MANIFEST: kept.model_dump_json()}
    return ModelVersion(RANKER, number, PRODUCTION, tags)


def test_every_metric_is_set_beside_productions_with_its_change() -> None:
    rows = metric_rows({"auc": 0.75, "rows": 10.0, "new": 1.0}, {"auc": 0.5, "rows": 0.0, "old": 2.0})
    assert [tuple(row.values()) for row in rows] == [
        ("auc", 0.75, 0.5, 0.25, 0.5),
        ("rows", 10.0, 0.0, 10.0, None),
        ("new", 1.0, None, None, None),
        ("old", None, 2.0, None, None),
    ]


def test_what_differs_in_lineage_and_parameters_is_named() -> None:
    this = manifest(lineage={"t0": "june", "dataset_digest": "a" * 64}, parameters={"max_depth": 4, "rounds": 9})
    production = manifest(lineage={"t0": "may", "dataset_digest": "b" * 64}, parameters={"max_depth": 3, "rounds": 9})
    assert difference_rows(this, production, "ranker: ") == [
        {"what": "ranker: t0", "this": "june", "Production": "may"},
        {"what": "ranker: dataset_digest", "this": "a" * 16, "Production": "b" * 16},
        {"what": "ranker: max_depth", "this": "4", "Production": "3"},
    ]
    assert difference_rows(this, this) == []


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        ((), "no ranker in Production"),
        ((registered(3, manifest(metrics={"auc": 0.5}, parameters={"a": 1})),), "ranker 3"),
        ((registered(3, manifest()),), "ranker 3 (this one)"),
        ((registered(3, None),), "ranker has no manifest"),
    ],
)
def test_the_page_says_what_it_compares_with(standing: tuple[ModelVersion, ...], told: str) -> None:
    shown = compared(platform(*standing), {RANKER: manifest(metrics={"auc": 0.75} if told == "ranker 3" else {})})
    assert shown["compared_with"] == told
    assert ("comparison" in shown, "differences" in shown) == ((True, True) if told == "ranker 3" else (False, False))
    if "comparison" in shown:
        assert isinstance(shown["comparison"], dg.TableMetadataValue)


def test_a_version_that_duet_did_not_register_has_no_manifest() -> None:
    assert manifest_of(registered(1, None)) is None
    assert manifest_of(ModelVersion(RANKER, 1, tags={TAG_MANIFEST: "{"})) is None
