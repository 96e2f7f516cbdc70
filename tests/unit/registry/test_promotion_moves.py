"""Promotion and rollback on the in-memory registry: verified, ordered, audited, undone."""

import json
from pathlib import Path

import pytest

from registry.contracts import (
    ARCHIVED,
    NO_STAGE,
    PRODUCTION,
    STAGING,
    TAG_DIGEST,
    TAG_EMBEDDING_DIGEST,
    ArtifactKind,
    ReleaseVersions,
)
from registry.errors import (
    CorruptArtifact,
    IncoherentRelease,
    NothingToRollBackTo,
    PromotionConflict,
    UnknownVersion,
)
from registry.mlflow.observer import observe
from registry.models.artifacts import read_manifest
from registry.promotion.audit import Promotion
from registry.promotion.history import release_at, standing_releases
from registry.promotion.promotion import promote, rollback
from registry.promotion.release_cache import ReleaseCache
from registry.release import load_release
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.promotions import go, stages
from tests.releases import FEATURES, SCHEMA, judge

EMBEDDING, INDEX, RANKER = ArtifactKind
FIRST, SECOND, THIRD = (ReleaseVersions(n, n, n) for n in (1, 2, 3))


def test_a_promotion_moves_all_three_and_is_recorded(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST, reason="first light")
    assert registry.resolve_stage(PRODUCTION) == FIRST
    assert registry.aliases(RANKER) == {"champion": 1}
    (entry,) = log.promotions
    assert (entry.versions, entry.stage, entry.actor, entry.way, entry.reason) == (
        FIRST,
        PRODUCTION,
        "ada",
        "cli",
        "first light",
    )
    assert entry.from_stages == dict.fromkeys(ArtifactKind, NO_STAGE)


def test_tags_that_lie_do_not_make_one_release_of_parts_of_two(
    written: list[dict[ArtifactKind, Path]], log: MemoryPromotionLog
) -> None:
    first, second, *_ = written
    registry = MemoryRegistry()
    lie = {TAG_EMBEDDING_DIGEST: read_manifest(first[EMBEDDING]).digest}
    registry.register(EMBEDDING, first[EMBEDDING])
    registry.register(INDEX, second[INDEX], tags=lie)
    registry.register(RANKER, first[RANKER])
    judge(registry, FIRST)
    with pytest.raises(IncoherentRelease, match="The index was built from embedding"):
        go(registry, log, FIRST)
    assert not log.promotions
    assert {stage for found in stages(registry).values() for stage in found} == {NO_STAGE}


def test_promoting_again_changes_nothing(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    go(registry, log, FIRST)
    assert len(log.promotions) == 1


def test_the_displaced_release_is_archived(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND)
    assert stages(registry) == {kind.value: [ARCHIVED, PRODUCTION, NO_STAGE] for kind in ArtifactKind}


def test_between_the_moves_nobody_sees_a_mixed_release(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    seen: set[str] = set()

    def look() -> None:
        try:
            seen.add(registry.resolve_stage().release_id)
        except IncoherentRelease:
            seen.add("refused")

    registry.before_write = look
    go(registry, log, SECOND)
    assert seen == {"e1-i1-r1", "refused", "e2-i2-r2"}


def test_an_incoherent_set_is_refused_before_anything_moves(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    with pytest.raises(IncoherentRelease, match="index 2 was built from embedding"):
        go(registry, log, ReleaseVersions(1, 2, 1))
    with pytest.raises(IncoherentRelease, match="feature schema"):
        go(registry, log, FIRST, feature_schema="f" * 64)
    with pytest.raises(UnknownVersion):
        go(registry, log, ReleaseVersions(1, 1, 9))
    with pytest.raises(UnknownVersion, match="not a stage to promote to"):
        go(registry, log, FIRST, stage="Archived")
    registry.set_tag(RANKER, 2, TAG_DIGEST, "")
    with pytest.raises(IncoherentRelease, match="no digest tag"):
        go(registry, log, SECOND)
    assert log.promotions == []
    assert registry.in_stage(PRODUCTION) == {}


def test_a_version_whose_bytes_were_changed_is_refused(
    registry: MemoryRegistry, log: MemoryPromotionLog, written: list[dict[ArtifactKind, Path]]
) -> None:
    model = written[0][RANKER] / "model.ubj"
    content = model.read_bytes()
    model.write_bytes(content[:-1])
    try:
        with pytest.raises(CorruptArtifact, match=r"model\.ubj"):
            go(registry, log, FIRST)
    finally:
        model.write_bytes(content)
    assert registry.in_stage(PRODUCTION) == {}


def test_two_promotions_at_once_give_one_winner(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    with log.exclusively(), pytest.raises(PromotionConflict):
        go(registry, log, FIRST)
    go(registry, log, FIRST)


def test_a_challenger_may_share_parts_with_the_champion(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND, stage=STAGING)
    challenger = ReleaseVersions(1, 1, 3)
    judge(registry, challenger)
    go(registry, log, challenger, stage=STAGING)
    assert registry.resolve_stage(PRODUCTION) == FIRST
    assert registry.resolve_stage(STAGING) == challenger
    assert registry.versions_in_stage(INDEX, STAGING) == [], "what stood there before is gone"
    assert registry.aliases(RANKER) == {"champion": 1, "challenger": 3}
    go(registry, log, challenger)
    assert registry.resolve_stage(PRODUCTION) == challenger
    assert registry.aliases(RANKER) == {"champion": 3}


def test_rolling_back_twice_goes_two_releases_back(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    for versions in (FIRST, SECOND, THIRD):
        go(registry, log, versions)
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == SECOND
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None, reason="worse") == FIRST
    assert registry.resolve_stage(PRODUCTION) == FIRST
    assert log.promotions[-1].rolled_back_from == SECOND.release_id
    with pytest.raises(NothingToRollBackTo):
        rollback(registry, log, actor="ada", way="cli", feature_schema=None)
    go(registry, log, THIRD)
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == FIRST


def test_a_rollback_can_name_its_release(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    for versions in (FIRST, SECOND, THIRD):
        go(registry, log, versions)
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None, to=FIRST) == FIRST
    assert registry.aliases(EMBEDDING) == {"champion": 1}


def test_a_rollback_restores_what_a_stray_move_broke(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    registry.transition_stage(EMBEDDING, 2, PRODUCTION)
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == FIRST
    assert registry.resolve_stage(PRODUCTION) == FIRST


def test_a_rollback_refuses_when_production_changes_underneath(
    registry: MemoryRegistry, log: MemoryPromotionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND)
    cache = ReleaseCache(tmp_path)
    fetch = cache.fetch

    def fetch_slowly(reg: MemoryRegistry, versions: ReleaseVersions) -> object:
        for kind in ArtifactKind:
            registry.transition_stage(kind, 3, PRODUCTION)
        return fetch(reg, versions)

    monkeypatch.setattr(cache, "fetch", fetch_slowly)
    with pytest.raises(PromotionConflict, match="Production changed"):
        rollback(registry, log, actor="ada", way="cli", feature_schema=None, cache=cache)
    assert registry.resolve_stage(PRODUCTION) == THIRD


def test_a_hand_moved_release_is_recorded_once(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    assert observe(registry, log) == []
    go(registry, log, FIRST)
    for kind in (EMBEDDING, INDEX):
        registry.transition_stage(kind, 2, PRODUCTION)
        if kind is EMBEDDING:
            assert observe(registry, log) == [], "an incoherent stage is no release"
    observed = ReleaseVersions(2, 2, 1)
    assert [entry.versions for entry in observe(registry, log)] == [observed]
    assert observe(registry, log) == []
    assert (log.promotions[-1].way, log.promotions[-1].actor) == ("ui", "mlflow")
    assert registry.aliases(INDEX) == {"champion": 2}
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == FIRST
    with log.exclusively():
        registry.transition_stage(RANKER, 3, PRODUCTION)
        assert observe(registry, log) == [], "a promotion under way records itself"


def test_a_rollback_knows_a_hand_moved_release_that_nobody_recorded(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    for kind in ArtifactKind:
        registry.transition_stage(kind, 2, PRODUCTION)
    assert rollback(registry, log, actor="ada", way="cli", feature_schema=None) == FIRST


def test_the_release_at_an_instant(registry: MemoryRegistry, log: MemoryPromotionLog) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND)
    first, second = (entry.at for entry in log.promotions)
    assert first
    assert second
    assert release_at(log, first).versions == FIRST  # type: ignore[union-attr]
    assert release_at(log, second).versions == SECOND  # type: ignore[union-attr]
    assert release_at(log, first.replace(year=2000)) is None


def test_standing_releases_forget_what_was_rolled_back() -> None:
    def entry(versions: ReleaseVersions, left: ReleaseVersions | None = None) -> Promotion:
        return Promotion(versions, PRODUCTION, "a", "cli", "", {"rolled_back_from": left.release_id} if left else {})

    assert standing_releases([]) == []
    assert standing_releases([entry(FIRST), entry(FIRST)]) == [FIRST]
    assert standing_releases([entry(FIRST), entry(SECOND), entry(FIRST, SECOND), entry(THIRD)]) == [FIRST, THIRD]
    assert standing_releases([entry(FIRST, SECOND)]) == [FIRST]


def test_the_cache_starts_serving_without_a_registry(
    registry: MemoryRegistry, log: MemoryPromotionLog, tmp_path: Path
) -> None:
    cache = ReleaseCache(tmp_path / "releases")
    assert cache.last_good() is None
    promote(registry, log, FIRST, actor="ada", way="cli", feature_schema=None, cache=cache)
    local = cache.fetch(registry, FIRST)
    assert registry.downloads == 3, "what promotion verified is not fetched again"
    names = {"feature_schema": SCHEMA, "feature_names": FEATURES}
    release = load_release(local.directories, FIRST, expected_digests=local.digests, **names)  # type: ignore[arg-type]
    cache.remember(release)
    registry.down = True
    again = ReleaseCache(tmp_path / "releases").last_good()
    assert again is not None
    assert (
        load_release(again.directories, again.versions, expected_digests=again.digests, **names).release_id
        == "e1-i1-r1"
    )  # type: ignore[arg-type]
    assert not list((tmp_path / "releases").glob(".*")), "no temporary file is left"


def test_a_damaged_copy_is_fetched_again(registry: MemoryRegistry, tmp_path: Path) -> None:
    cache = ReleaseCache(tmp_path)
    local = cache.fetch(registry, FIRST)
    (local.directories[RANKER] / "model.ubj").write_bytes(b"")
    cache.fetch(registry, FIRST)
    assert registry.downloads == 4


def test_an_unreadable_pointer_is_no_release(registry: MemoryRegistry, tmp_path: Path) -> None:
    cache = ReleaseCache(tmp_path)
    cache.fetch(registry, FIRST)
    for content in (b"", b"{", b"[]", json.dumps({"embedding": 1, "index": 1, "ranker": 1, "digests": {}}).encode()):
        (tmp_path / "last_good.json").write_bytes(content)
        assert cache.last_good() is None
    registry.set_tag(RANKER, 1, TAG_DIGEST, "")
    with pytest.raises(CorruptArtifact, match="no digest tag"):
        cache.fetch(registry, FIRST)


def test_old_copies_are_pruned_but_never_the_last_good(registry: MemoryRegistry, tmp_path: Path) -> None:
    cache = ReleaseCache(tmp_path)
    local = cache.fetch(registry, FIRST)
    names = {"feature_schema": SCHEMA, "feature_names": FEATURES}
    cache.remember(load_release(local.directories, FIRST, **names))  # type: ignore[arg-type]
    cache.fetch(registry, SECOND)
    cache.fetch(registry, THIRD)
    assert cache.prune([THIRD], spare=1) == []
    removed = cache.prune([THIRD], spare=0)
    assert {path.parent.name for path in removed} == {kind.value for kind in ArtifactKind}
    assert all(path.name.startswith("2-") for path in removed)
    assert cache.last_good() is not None
