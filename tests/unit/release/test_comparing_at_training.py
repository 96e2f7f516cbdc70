"""What the training could not compare with Production: it is said in the figures, and the gates that compare fail."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines.ranking.judging import beside_production
from pipelines.release.measure import uncompared
from pipelines.release.policy import Measured, Measurement, judge, load_policy
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.errors import RegistryUnavailable
from registry.release import Release, load_release
from tests.fakes import MemoryRegistry
from tests.releases import FEATURES, SCHEMA, register_release, write_release

WHY = "e1-i1-r1 in Production cannot be loaded here: a file is missing."


@pytest.fixture
def registry(tmp_path: Path) -> MemoryRegistry:
    """A registry with a release in Production."""
    found = MemoryRegistry()
    versions = register_release(found, write_release(tmp_path))
    for kind in ArtifactKind:
        found.transition_stage(kind, versions[kind], PRODUCTION)
    return found


def compared(registry: MemoryRegistry) -> Any:
    platform = cast("Any", SimpleNamespace(registry=registry))
    return beside_production(platform, lambda release: {"release": release.release_id}, lambda _sentence: None)


def release(tmp_path: Path, judged: dict[str, Any] | None = None) -> Release:
    paths = write_release(tmp_path / "loaded")
    loaded = load_release(paths, ReleaseVersions(1, 1, 1), feature_schema=SCHEMA, feature_names=FEATURES)
    return replace(loaded, ranker=replace(loaded.ranker, judged=judged))


def test_a_registry_that_is_away_ends_the_training_of_the_ranker(registry: MemoryRegistry) -> None:
    registry.down = True
    with pytest.raises(RegistryUnavailable):
        compared(registry)


def test_without_a_release_in_production_there_is_nothing_to_compare_with() -> None:
    assert compared(MemoryRegistry()) is None


def test_a_production_that_cannot_be_loaded_is_said_in_the_figures(registry: MemoryRegistry) -> None:
    registry.forget(ArtifactKind.RANKER, 1)
    told = compared(registry)
    assert set(told) == {"release", "unloadable"}
    assert "in Production cannot be loaded here: " in told["unloadable"]


def test_what_the_training_could_not_compare_fails_its_gates_though_production_loads_by_now(tmp_path: Path) -> None:
    candidate = release(tmp_path, {"production": {"release": "e1-i1-r1", "unloadable": WHY}})
    found = Measured(
        {name: Measurement(0.5) for name in ("ndcg_at_20", "match_precision_at_10")},
        {},
        missing={"prediction_drift_psi": "Production was not asked about the same decisions"},
        against="e1-i1-r1",
        uncompared=uncompared(candidate, release(tmp_path)),
    )
    policy = load_policy()
    told = {"ndcg_at_20", "match_precision_at_10", "prediction_drift_psi"}
    gates = tuple(gate for gate in policy.gates if gate.metric in told)
    report = judge(policy.model_copy(update={"gates": gates}), found, "e2-i2-r2", datetime(2026, 6, 1, tzinfo=UTC))
    assert {result.metric for result in report.failures()} == told
    for result in report.failures():
        assert result.why == f"It could not be compared: {WHY} So it was when the ranker was trained: train it again."


def test_where_nothing_stands_in_production_any_more_nothing_is_uncompared(tmp_path: Path) -> None:
    candidate = release(tmp_path, {"production": {"release": "e1-i1-r1", "unloadable": WHY}})
    assert uncompared(candidate, None) == {}
    assert uncompared(release(tmp_path, {"production": None}), release(tmp_path)) == {}
    assert uncompared(release(tmp_path), release(tmp_path)) == {}
