"""Three releases that were written once, and a registry and an audit in memory."""

from pathlib import Path

import pytest

from registry.contracts import ArtifactKind
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import register_release, write_release


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[dict[ArtifactKind, Path]]:
    root = tmp_path_factory.mktemp("releases")
    return [write_release(root, seed) for seed in range(3)]


@pytest.fixture
def registry(written: list[dict[ArtifactKind, Path]]) -> MemoryRegistry:
    registry = MemoryRegistry()
    for number, paths in enumerate(written):
        register_release(registry, paths, f"rc-{number}")
    return registry


@pytest.fixture
def log() -> MemoryPromotionLog:
    return MemoryPromotionLog()
