"""A rollback needs no MLflow; what it could not be told it is told later, by whoever looks first, once."""

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.contracts import PRODUCTION, STAGING, TAG_DIGEST, ArtifactKind, ReleaseVersions, mark_of
from registry.errors import (
    NoCopy,
    NothingToRollBackTo,
    PinCannotEnd,
    PromotionConflict,
    RegistryUnavailable,
    UnknownVersion,
)
from registry.mlflow.observer import observe, settle_pin
from registry.promotion.promotion import promote, rollback
from registry.promotion.release_cache import KEPT_GOOD, ReleaseCache
from registry.release import load_release
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import FEATURES, SCHEMA, judge, register_release

FIRST, SECOND, THIRD = (ReleaseVersions(n, n, n) for n in (1, 2, 3))


class ObservedLog(MemoryPromotionLog):
    """An audit whose stages somebody observes just now, for no longer than a patient one waits."""

    def observing(self, *, patiently: bool = False) -> AbstractContextManager[None]:
        if not patiently:
            raise PromotionConflict("Somebody observes.")
        return super().observing(patiently=True)


class World:
    """Three releases, promoted one after the other, with copies here."""

    def __init__(self, root: Path, written: list[dict[ArtifactKind, Path]]) -> None:
        self.registry, self.log = MemoryRegistry(), MemoryPromotionLog()
        self.cache = ReleaseCache(root / "releases")
        for paths in written:
            judge(self.registry, register_release(self.registry, paths))
        for versions in (FIRST, SECOND, THIRD):
            self.promote(versions)

    def promote(self, versions: ReleaseVersions) -> None:
        promote(self.registry, self.log, versions, actor="ada", way="cli", feature_schema=None, cache=self.cache)

    def roll_back(self, to: ReleaseVersions | None = None, mark: str | None = None) -> ReleaseVersions:
        return rollback(
            self.registry,
            self.log,
            actor="eve",
            way="cli",
            feature_schema=None,
            reason="worse",
            to=to,
            mark=mark,
            cache=self.cache,
        )


@pytest.fixture
def world(tmp_path: Path, written: list[dict[ArtifactKind, Path]]) -> World:
    return World(tmp_path, written)


def test_without_mlflow_a_rollback_is_pinned_and_audited(world: World) -> None:
    world.registry.down = True
    assert world.roll_back() == SECOND
    pin = world.log.open_pin()
    assert pin is not None
    assert (pin.versions, pin.actor, pin.reason) == (SECOND, "eve", "worse")
    entry = world.log.promotions[-1]
    assert (entry.versions, entry.rolled_back_from, entry.digests) == (SECOND, THIRD.release_id, pin.digests)


def test_a_rollback_waits_for_whoever_observes_the_stages_so_that_they_follow_at_once(world: World) -> None:
    observed = ObservedLog()
    observed.promotions = world.log.promotions
    world.log = observed
    assert world.roll_back() == SECOND
    assert world.log.open_pin() is None
    assert world.registry.resolve_stage(PRODUCTION) == SECOND


def test_once_mlflow_answers_its_stages_follow_and_the_pin_is_closed_by_whoever_looks(world: World) -> None:
    world.registry.down = True
    world.roll_back()
    with pytest.raises(RegistryUnavailable):
        observe(world.registry, world.log)
    world.registry.down = False
    n_rows = len(world.log.promotions)
    assert observe(world.registry, world.log) == []
    assert world.registry.resolve_stage(PRODUCTION) == SECOND
    assert world.registry.aliases(ArtifactKind.INDEX) == {"champion": 2}
    assert world.log.open_pin() is None
    assert len(world.log.promotions) == n_rows, "the rollback was recorded when it was made, and once"


def test_two_rollbacks_without_mlflow_go_two_releases_back(world: World) -> None:
    world.registry.down = True
    assert world.roll_back() == SECOND
    assert world.roll_back() == FIRST
    with pytest.raises(NothingToRollBackTo):
        world.roll_back()
    world.registry.down = False
    settle_pin(world.registry, world.log)
    assert world.registry.resolve_stage(PRODUCTION) == FIRST


def test_a_rollback_to_what_stands_there_changes_nothing(world: World) -> None:
    n_rows = len(world.log.promotions)
    assert world.roll_back(to=THIRD) == THIRD
    world.registry.down = True
    assert world.roll_back(to=THIRD) == THIRD
    assert len(world.log.promotions) == n_rows
    assert world.log.open_pin() is None


def test_with_mlflow_the_stages_have_moved_when_the_rollback_returns(world: World) -> None:
    assert world.roll_back() == SECOND
    assert world.log.open_pin() is None
    assert world.registry.resolve_stage(PRODUCTION) == SECOND


@pytest.mark.parametrize("n_writes", range(5))
def test_an_mlflow_that_goes_away_in_the_middle_of_a_rollback_cannot_stop_it(world: World, n_writes: int) -> None:
    world.registry.fail_after(n_writes)
    assert world.roll_back() == SECOND
    assert world.log.open_pin() is not None
    settle_pin(world.registry, world.log)
    assert world.registry.resolve_stage(PRODUCTION) == SECOND
    assert world.log.open_pin() is None


def test_a_promotion_ends_a_pin(world: World) -> None:
    world.registry.down = True
    world.roll_back()
    world.registry.down = False
    world.promote(FIRST)
    assert world.log.open_pin() is None
    assert world.log.closed_by == "e1-i1-r1 was promoted"
    assert observe(world.registry, world.log) == []
    assert world.registry.resolve_stage(PRODUCTION) == FIRST


def test_without_mlflow_and_without_a_copy_a_rollback_says_where_it_lacks_it(world: World, tmp_path: Path) -> None:
    world.registry.down = True
    world.cache = ReleaseCache(tmp_path / "another machine")
    with pytest.raises(NoCopy, match="e2-i2-r2 has no verified copy on"):
        world.roll_back()
    assert world.log.open_pin() is None
    assert world.log.promotions[-1].versions == THIRD


def test_a_damaged_copy_is_no_copy_without_mlflow_and_is_fetched_again_with_it(world: World) -> None:
    digest = world.registry.version(ArtifactKind.RANKER, 2).digest
    model = world.cache.directory(ArtifactKind.RANKER, 2, str(digest)) / "model.ubj"
    model.write_bytes(model.read_bytes()[:-1])
    world.registry.down = True
    with pytest.raises(NoCopy):
        world.roll_back()
    world.registry.down = False
    assert world.roll_back() == SECOND


def test_of_two_rollbacks_at_once_the_second_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.registry.down = True
    copy_of = world.cache.copy_of

    def slowly(*args: object) -> object:
        monkeypatch.setattr(world.cache, "copy_of", copy_of)
        world.roll_back(to=FIRST)
        return copy_of(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(world.cache, "copy_of", slowly)
    with pytest.raises(PromotionConflict, match="Production changed"):
        world.roll_back()
    pin = world.log.open_pin()
    assert pin is not None
    assert pin.versions == FIRST


def test_a_pin_is_not_carried_out_with_other_bytes(world: World) -> None:
    world.registry.down = True
    world.roll_back()
    world.registry.down = False
    world.registry.set_tag(ArtifactKind.RANKER, 2, TAG_DIGEST, "0" * 64)
    with pytest.raises(PinCannotEnd, match="the pinned one had"):
        settle_pin(world.registry, world.log)
    assert world.log.open_pin() is not None
    assert world.registry.resolve_stage(PRODUCTION) == THIRD


def test_copies_that_a_rollback_may_need_stay(world: World) -> None:
    names = {"feature_schema": SCHEMA, "feature_names": FEATURES}
    for versions in (FIRST, SECOND, THIRD):
        local = world.cache.fetch(world.registry, versions)
        assert not world.cache.is_good(local)
        world.cache.remember(load_release(local.directories, versions, **names))  # type: ignore[arg-type]
        assert world.cache.is_good(local)
    assert world.cache.prune([THIRD], spare=0) == []
    assert [local.versions for local in world.cache.good()] == [THIRD, SECOND, FIRST]
    assert KEPT_GOOD >= 3


def test_a_pin_whose_version_was_deleted_says_so_ends_with_a_promotion_and_stops_no_audit(world: World) -> None:
    world.registry.down = True
    world.roll_back()
    world.registry.down = False
    world.registry.forget(ArtifactKind.INDEX, 2)
    n_rows = len(world.log.promotions)
    observed = observe(world.registry, world.log)
    assert observed == []
    assert observed.pin_problem == (
        "The pin on e2-i2-r2 cannot end: index version 2 was deleted in MLflow. It serves from local copies; promote "
        "another release with `duet promote`."
    )
    assert len(world.log.promotions) == n_rows, "what stood in Production before the rollback is no news"
    for kind in ArtifactKind:
        world.registry.transition_stage(kind, 1, STAGING)
    assert [(entry.versions, entry.stage) for entry in observe(world.registry, world.log)] == [(FIRST, STAGING)]
    world.promote(FIRST)
    assert world.log.open_pin() is None
    assert observe(world.registry, world.log).pin_problem is None


def test_a_stage_moved_while_a_pin_cannot_end_is_in_the_audit(world: World) -> None:
    world.registry.down = True
    world.roll_back()
    world.log.pins[-1] = replace(world.log.pins[-1], at=datetime(2020, 1, 1, tzinfo=UTC))  # before all moves here
    world.registry.down = False
    world.registry.forget(ArtifactKind.INDEX, 2)
    for kind in ArtifactKind:
        world.registry.transition_stage(kind, 1, PRODUCTION)
    (entry,) = observe(world.registry, world.log)
    assert (entry.versions, entry.way) == (FIRST, "ui")


def learnt_anew(world: World, written: list[dict[ArtifactKind, Path]]) -> tuple[World, str, str]:
    """Return the world after its models were deleted in MLflow and learnt anew, and both marks of the first release."""
    (old,) = {mark_of(entry.digests) for entry in world.log.promotions if entry.versions == FIRST}
    again = World.__new__(World)
    again.registry, again.log, again.cache = MemoryRegistry(), world.log, world.cache
    for paths in (written[2], written[1]):
        judge(again.registry, register_release(again.registry, paths))
    again.promote(FIRST)
    again.promote(SECOND)
    new = mark_of(again.log.promotions[-2].digests)
    assert old != new
    return again, old, new


def test_on_a_machine_without_copies_only_the_bytes_that_mlflow_holds_can_be_named(
    world: World, written: list[dict[ArtifactKind, Path]], tmp_path: Path
) -> None:
    again, old, new = learnt_anew(world, written)
    again.cache = ReleaseCache(tmp_path / "elsewhere")
    with pytest.raises(NoCopy, match=f"e1-i1-r1@{old} has no verified copy on .* MLflow holds other bytes"):
        again.roll_back(to=FIRST, mark=old)
    assert again.log.open_pin() is None
    again.cache = ReleaseCache(tmp_path / "still elsewhere")  # the first look has left a copy
    assert again.roll_back(to=FIRST, mark=new) == FIRST
    assert again.registry.resolve_stage(PRODUCTION) == FIRST


def test_a_release_whose_numbers_came_twice_is_named_by_its_mark(
    world: World, written: list[dict[ArtifactKind, Path]]
) -> None:
    again, old, new = learnt_anew(world, written)
    with pytest.raises(UnknownVersion, match=f"names 2 releases, oldest first: give one of e1-i1-r1@{old}, .*@{new}"):
        again.roll_back(to=FIRST)
    with pytest.raises(UnknownVersion, match="no e1-i1-r1@beef"):
        again.roll_back(to=FIRST, mark="beef")
    assert again.roll_back(to=FIRST, mark=old[:6]) == FIRST
    pin = again.log.open_pin()
    assert pin is not None, "MLflow holds other bytes under these numbers"
    assert mark_of(pin.digests) == old
