"""A promotion by somebody, and where all versions stand after it."""

from registry.contracts import ArtifactKind, ReleaseVersions
from registry.promotion.promotion import promote
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import SCHEMA


def go(registry: MemoryRegistry, log: MemoryPromotionLog, versions: ReleaseVersions, **kwargs: str) -> None:
    chosen = {"feature_schema": SCHEMA, **kwargs}
    assert promote(registry, log, versions, actor="ada", way="cli", **chosen) == versions  # type: ignore[arg-type]


def stages(registry: MemoryRegistry) -> dict[str, list[str]]:
    return {kind.value: [version.stage for version in reversed(registry.versions(kind))] for kind in ArtifactKind}
