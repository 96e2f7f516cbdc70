"""Set a new artefact beside the one in Production: every metric, every parameter and all lineage that differ.

Only manifests are read, so nothing is downloaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipelines.presentation import table
from registry.contracts import PRODUCTION, TAG_MANIFEST, ArtifactKind, Manifest, ModelVersion

if TYPE_CHECKING:
    from pipelines.resources import Platform

Rows = list[dict[str, str | float | None]]
_SHORT = 16


def compared(platform: "Platform", manifests: Mapping[ArtifactKind, Manifest]) -> dict[str, Any]:
    """Return what an asset page shows of these artefacts beside Production's: two tables and what they compare with."""
    standing = platform.registry.in_stage(PRODUCTION)
    names: list[str] = []
    metrics: Rows = []
    differences: Rows = []
    for kind, manifest in manifests.items():
        version = standing.get(kind)
        production = manifest_of(version) if version is not None else None
        if version is None or production is None:
            names.append(f"no {kind.value} in Production" if version is None else f"{kind.value} has no manifest")
            continue
        same = " (this one)" if production.digest == manifest.digest else ""
        names.append(f"{kind.value} {version.version}{same}")
        prefix = f"{kind.value}: " if len(manifests) > 1 else ""
        metrics += metric_rows(manifest.metrics, production.metrics, prefix)
        differences += difference_rows(manifest, production, prefix)
    shown: dict[str, Any] = {"compared_with": ", ".join(names)}
    if metrics:
        shown["comparison"] = table(metrics)
    if differences:
        shown["differences"] = table(differences)
    return shown


def manifest_of(version: ModelVersion) -> Manifest | None:
    """Read the manifest that a version carries as a tag; None for a version that Duet did not register."""
    try:
        return Manifest.model_validate_json(version.tags.get(TAG_MANIFEST, ""))
    except ValidationError:
        return None


def metric_rows(this: Mapping[str, float], production: Mapping[str, float], prefix: str = "") -> Rows:
    """Return `metric | this | Production | change` for every metric of either, in this one's order."""
    rows: Rows = []
    for name in dict.fromkeys([*this, *production]):
        own, theirs = this.get(name), production.get(name)
        change = None if own is None or theirs is None else own - theirs
        rows.append(
            {
                "metric": f"{prefix}{name}",
                "this": own,
                "Production": theirs,
                "change": change,
                "change_share": None if change is None or not theirs else change / abs(theirs),
            }
        )
    return rows


def difference_rows(this: Manifest, production: Manifest, prefix: str = "") -> Rows:
    """Return `what | this | Production` for each part of the lineage and each parameter that differs."""
    rows: Rows = []
    for own, theirs in ((this.lineage, production.lineage), (this.parameters, production.parameters)):
        for name in dict.fromkeys([*own, *theirs]):
            if own.get(name) != theirs.get(name):
                rows.append(
                    {
                        "what": f"{prefix}{name}",
                        "this": _short(name, own.get(name)),
                        "Production": _short(name, theirs.get(name)),
                    }
                )
    return rows


def _short(name: str, value: object) -> str:
    text = "" if value is None else str(value)
    return text[:_SHORT] if name.endswith("_digest") else text
