"""Finish an artefact: move it to its place by digest, log it to MLflow, register it, and only then point at it.

A run killed at any moment leaves scratch that is swept, a failed MLflow run, or an artefact nobody points at; never a
version without its files, and never a pointer to half of something.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from infra.faults import failpoint
from pipelines.errors import MissingUpstream
from registry.contracts import ArtifactKind, Manifest

if TYPE_CHECKING:
    from pipelines.resources import Platform
    from pipelines.results.store import StepResult

ASSET_OF = {
    ArtifactKind.EMBEDDING: "embeddings",
    ArtifactKind.INDEX: "candidate_index",
    ArtifactKind.RANKER: "ranker",
}


@dataclass(frozen=True)
class VersionNotes:
    """What a version is logged with beside its files."""

    params: Mapping[str, JsonValue]
    metrics: Mapping[str, float]
    figures: Mapping[str, bytes]
    tables: Mapping[str, str]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Registered:
    """A finished, registered artefact."""

    manifest: Manifest
    directory: Path
    version: int
    run_url: str


def finish_artifact(
    platform: "Platform",
    kind: ArtifactKind,
    save: Callable[[Path], Manifest],
    explanation: VersionNotes,
    run_id: str,
) -> Registered:
    """Save an artefact aside, adopt it by its digest and register it; the IO manager publishes the pointer last."""
    asset = ASSET_OF[kind]
    failpoint(f"{kind}.after_training")
    with platform.results.staging(asset) as scratch:
        staged = scratch / "artifact"
        manifest = save(staged)
        failpoint(f"{kind}.after_saving")
        directory = platform.results.adopt(staged, asset, manifest.digest)
    failpoint(f"{kind}.after_adoption")
    version = platform.models.log_version(
        kind,
        directory,
        params=explanation.params,
        metrics=explanation.metrics,
        figures=explanation.figures,
        tables=explanation.tables,
        curves=explanation.curves,
        dagster_run_id=run_id,
        dagster_url=platform.run_url(run_id),
    )
    failpoint(f"{kind}.after_registration")
    return Registered(manifest, directory, version, platform.model_url(kind, version))


def artifact_directory(platform: "Platform", kind: ArtifactKind, digest: str, version: int) -> Path:
    """Return the artefact's directory, fetched from the registry if it is not among the results."""
    asset = ASSET_OF[kind]
    if platform.results.has(asset, digest):
        return platform.results.path(asset, digest)
    directory = platform.results.directory(asset, digest)
    directory.parent.mkdir(parents=True, exist_ok=True)
    platform.registry.download(kind, version, directory)
    return directory


def production_or_newest(platform: "Platform", kind: ArtifactKind, newest: "StepResult | None") -> "StepResult":
    """Return the artefact in stage Production, else the `newest` one made here.

    Raises:
        MissingUpstream: there is neither.
    """
    from registry.contracts import PRODUCTION

    standing = platform.registry.in_stage(PRODUCTION).get(kind)
    if standing is None or standing.digest is None:
        if newest is None:
            raise MissingUpstream(f"no `{ASSET_OF[kind]}` was made here yet; run the job `train_all` first")
        return newest
    if newest is not None and newest.digest == standing.digest:
        return newest
    directory = artifact_directory(platform, kind, standing.digest, standing.version)
    return pointer_from_manifest(ASSET_OF[kind], directory, standing.version)


def pointer_from_manifest(asset: str, directory: Path, version: int) -> "StepResult":
    """Return a pointer to an artefact that was made elsewhere, from the lineage in its manifest."""
    from pipelines.results.store import StepResult
    from registry.models.artifacts import read_manifest

    manifest = read_manifest(directory)
    lineage = manifest.lineage
    inputs = {name: lineage[f"{name}_digest"] for name in ("people", "interactions") if f"{name}_digest" in lineage}
    return StepResult.model_validate(
        {
            "asset": asset,
            "place": directory,
            "digest": manifest.digest,
            "run_id": "",
            "as_of": lineage.get("as_of", "1970-01-01T00:00:00+00:00"),
            "t0": lineage.get("t0"),
            "t1": lineage.get("t1"),
            "version": version,
            "inputs": inputs,
        }
    )
