"""Stages moved by hand reach the audit once, at their own instant; what is no release does not."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from registry.contracts import ARCHIVED, PRODUCTION, STAGING, ArtifactKind, ReleaseVersions, mark_of
from registry.mlflow.observer import observe
from registry.promotion.history import release_at, standing_mark, standing_releases
from registry.promotion.promotion import promote, rollback
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import judge, register_release

EMBEDDING, INDEX, RANKER = ArtifactKind
FIRST, SECOND, THIRD = (ReleaseVersions(n, n, n) for n in (1, 2, 3))


@pytest.fixture
def registry(written: list[dict[ArtifactKind, Path]]) -> MemoryRegistry:
    registry = MemoryRegistry()
    for paths in written:
        judge(registry, register_release(registry, paths))
    return registry


@pytest.fixture
def log() -> MemoryPromotionLog:
    return MemoryPromotionLog()


def move(registry: MemoryRegistry, versions: ReleaseVersions, stage: str) -> None:
    for kind in ArtifactKind:
        registry.transition_stage(kind, versions[kind], stage)


def go(registry: MemoryRegistry, log: MemoryPromotionLog, versions: ReleaseVersions, stage: str = PRODUCTION) -> None:
    promote(registry, log, versions, actor="ada", way="cli", feature_schema=None, stage=stage)


def seen(log: MemoryPromotionLog) -> list[tuple[str, str, str]]:
    return [(entry.versions.release_id, entry.stage, entry.way) for entry in log.promotions]


def test_both_stages_are_observed_each_once(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    move(registry, FIRST, PRODUCTION)
    move(registry, SECOND, STAGING)
    for _ in range(3):
        observe(registry, log)
    assert seen(log) == [("e1-i1-r1", PRODUCTION, "ui"), ("e2-i2-r2", STAGING, "ui")]
    assert registry.aliases(RANKER) == {"champion": 1, "challenger": 2}
    assert set(log.promotions[0].digests) == set(ArtifactKind)


def test_an_emptied_staging_is_recorded_and_its_alias_goes(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND, STAGING)
    move(registry, SECOND, ARCHIVED)
    for _ in range(2):
        observe(registry, log)
    assert seen(log)[2:] == [("e2-i2-r2", ARCHIVED, "ui")]
    assert log.promotions[-1].from_stages == dict.fromkeys(ArtifactKind, STAGING)
    assert registry.aliases(RANKER) == {"champion": 1}
    assert release_at(log, stage=STAGING) is None
    move(registry, SECOND, STAGING)
    observe(registry, log)
    assert release_at(log, stage=STAGING) is not None, "it may come back"


def test_an_emptied_production_is_recorded_and_keeps_serving(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND)
    move(registry, SECOND, ARCHIVED)
    for _ in range(2):
        observe(registry, log)
    assert seen(log)[2:] == [("e2-i2-r2", ARCHIVED, "ui")]
    found = release_at(log)
    assert found is not None
    assert found.versions == SECOND, "serving keeps the last good release, and so does the answer"
    assert standing_releases(log.history()) == [FIRST, SECOND]
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == SECOND


def test_a_stage_that_is_no_release_is_not_recorded(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    registry.transition_stage(INDEX, 2, PRODUCTION)
    assert observe(registry, log) == []
    registry.transition_stage(INDEX, 1, ARCHIVED, archive_existing=False)
    registry.transition_stage(INDEX, 2, ARCHIVED, archive_existing=False)
    assert observe(registry, log) == [], "a part is missing, but the stage is not empty"


def test_production_is_recorded_once_it_is_honoured(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    move(registry, FIRST, PRODUCTION)
    assert observe(registry, log, honoured=lambda _: False) == []
    (entry,) = observe(registry, log, honoured=lambda found: found.versions == FIRST)
    assert entry.versions == FIRST


def test_other_bytes_of_the_numbers_that_were_recorded_are_recorded_once(
    registry: MemoryRegistry, log: MemoryPromotionLog, written: list[dict[ArtifactKind, Path]]
) -> None:
    go(registry, log, FIRST)
    registry.start_anew()
    judge(registry, register_release(registry, written[1]))
    move(registry, FIRST, PRODUCTION)
    for _ in range(2):
        observe(registry, log)
    assert [entry.versions for entry in log.promotions] == [FIRST, FIRST]
    assert standing_mark(log, FIRST) == mark_of(log.promotions[1].digests) != mark_of(log.promotions[0].digests)


def test_an_emptied_stage_is_recorded_with_the_bytes_that_stood_there(
    registry: MemoryRegistry, log: MemoryPromotionLog, written: list[dict[ArtifactKind, Path]]
) -> None:
    go(registry, log, FIRST)
    registry.start_anew()
    judge(registry, register_release(registry, written[1]))
    (emptied,) = observe(registry, log)
    assert emptied.is_departure
    assert emptied.digests == log.promotions[0].digests


def test_a_promoted_challenger_leaves_staging_without_a_row_of_its_own(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND, STAGING)
    staged = log.promotions[-1].at
    assert staged is not None
    go(registry, log, SECOND)
    assert observe(registry, log) == []
    assert release_at(log, stage=STAGING) is None
    before = release_at(log, staged, STAGING)
    assert before is not None
    assert before.versions == SECOND
    assert release_at(log, staged - timedelta(microseconds=1), STAGING) is None
    move(registry, FIRST, STAGING)
    observe(registry, log)
    again = release_at(log, stage=STAGING)
    assert again is not None
    assert (again.versions, again.way) == (FIRST, "ui")


def test_the_instant_is_the_last_move_of_the_three(registry: MemoryRegistry) -> None:
    instants: list[datetime | None] = []

    class Log(MemoryPromotionLog):
        def record(self, promotion: object) -> None:
            instants.append(promotion.at)  # type: ignore[attr-defined]
            super().record(promotion)  # type: ignore[arg-type]

    move(registry, FIRST, PRODUCTION)
    observe(registry, Log())
    moves = [registry.version(kind, 1).updated_at for kind in ArtifactKind]
    assert instants == [max(filter(None, moves))]


def test_a_version_that_was_deleted_is_an_emptied_stage_too(
    registry: MemoryRegistry, log: MemoryPromotionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(registry, log, FIRST, STAGING)
    move(registry, FIRST, ARCHIVED)
    monkeypatch.setattr(registry, "_versions", {kind: [] for kind in ArtifactKind})
    assert [entry.is_departure for entry in observe(registry, log)] == [True]
