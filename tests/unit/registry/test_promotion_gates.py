"""Gates decide what may be promoted; a person with a reason overrules them, and the audit tells."""

from pathlib import Path

import pytest

from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import ForceWithoutReason, GatesNotPassed
from registry.mlflow.observer import observe
from registry.promotion.promotion import promote, rollback
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import judge, register_release

FIRST, SECOND = ReleaseVersions(1, 1, 1), ReleaseVersions(2, 2, 2)


@pytest.fixture
def registry(written: list[dict[ArtifactKind, Path]]) -> MemoryRegistry:
    registry = MemoryRegistry()
    for paths in written:
        register_release(registry, paths)
    return registry


@pytest.fixture
def log() -> MemoryPromotionLog:
    return MemoryPromotionLog()


def test_a_release_that_nobody_judged_is_not_promoted(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    with pytest.raises(GatesNotPassed, match=r"e1-i1-r2 has not been judged by the gates: run `duet judge e1-i1-r2`"):
        promote(registry, log, ReleaseVersions(1, 1, 2), actor="ada", way="cli", feature_schema=None)
    assert registry.in_stage(PRODUCTION) == {}


@pytest.mark.parametrize("stage", [PRODUCTION, STAGING])
def test_a_failed_gate_refuses_the_release_in_its_own_words(
    registry: MemoryRegistry, log: MemoryPromotionLog, stage: str
) -> None:
    judge(registry, FIRST, passed=False)
    with pytest.raises(GatesNotPassed, match=r"e1-i1-r1 did not pass its gates.*recall 0\.5 is below 0\.9"):
        promote(registry, log, FIRST, stage=stage, actor="ada", way="cli", feature_schema=None)
    assert (registry.in_stage(stage), log.promotions, registry.downloads) == ({}, [], 0)
    judge(registry, FIRST)
    promote(registry, log, FIRST, stage=stage, actor="ada", way="cli", feature_schema=None)
    assert registry.resolve_stage(stage) == FIRST


def test_gates_are_overruled_only_with_a_reason_and_the_audit_tells(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    judge(registry, FIRST, passed=False)
    for reason in ("", "  "):
        with pytest.raises(ForceWithoutReason, match="add `--reason` to `--force`"):
            promote(registry, log, FIRST, actor="ada", way="cli", feature_schema=None, force=True, reason=reason)
    promote(
        registry,
        log,
        FIRST,
        actor="ada",
        way="cli",
        feature_schema=None,
        force=True,
        reason="the fair opens today",
    )
    promote(
        registry,
        log,
        ReleaseVersions(1, 1, 2),
        actor="ada",
        way="cli",
        feature_schema=None,
        force=True,
        reason="not judged at all",
    )
    promote(
        registry,
        log,
        SECOND,
        actor="ada",
        way="cli",
        feature_schema=None,
        force=True,
        reason="nothing to overrule",
    )
    failed, unjudged, passed = log.promotions
    assert (failed.gates["verdict"], failed.gates["forced"]) == ("failed: recall", True)
    assert failed.gates["failures"] == {"recall": "index recall 0.5 is below 0.9."}
    assert (unjudged.gates["verdict"], unjudged.gates["forced"]) == ("not judged", True)
    assert (passed.gates["verdict"], passed.gates["forced"]) == ("passed", False)


def test_a_rollback_is_not_held_up_by_gates(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    promote(registry, log, FIRST, actor="ada", way="cli", feature_schema=None)
    promote(registry, log, SECOND, actor="ada", way="cli", feature_schema=None)
    judge(registry, FIRST, passed=False)
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == FIRST


def test_a_stage_moved_by_hand_past_the_gates_is_honoured_and_the_audit_says_so(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    judge(registry, SECOND, passed=False)
    for versions in (FIRST, SECOND, ReleaseVersions(2, 2, 3)):
        for kind in ArtifactKind:
            registry.transition_stage(kind, versions[kind], PRODUCTION)
        observe(registry, log)
    honoured = [entry.gates.get("honoured") for entry in log.promotions]
    assert honoured == [
        None,
        "failed, honoured because coherent and verified",
        "not judged, honoured because coherent and verified",
    ]
    assert [entry.gates["verdict"] for entry in log.promotions] == ["passed", "failed: recall", "not judged"]
