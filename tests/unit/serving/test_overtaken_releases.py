"""What was overtaken by a newer order changes nothing: neither what serves, nor what a restart begins with."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from registry.contracts import STAGING, ArtifactKind, ReleaseVersions
from registry.errors import AuditUnavailable
from registry.promotion.audit import Pin
from registry.promotion.release_cache import LocalRelease, ReleaseCache
from registry.release import Release
from serving.errors import Overtaken
from serving.releases.decision import ReleaseDecision
from serving.releases.watcher import ReleaseWatcher
from tests.unit.serving.test_release_watcher import Shop

STEPS = ("prove", "load", "trial")


class Interrupted(Shop):
    """A shop in which something happens once, in the thread that makes a release ready, before one of its steps."""

    def __init__(self, root: Path) -> None:
        self.when: tuple[str, str] | None = None
        self.happens: Callable[[], None] = lambda: None
        self.given_up = threading.Event()
        super().__init__(root)

    def _reached(self, step: str, release: str) -> None:
        if self.when == (step, release):
            self.when = None
            self.happens()

    def _prove(self, local: LocalRelease) -> None:
        self._reached("prove", local.versions.release_id)
        super()._prove(local)

    def load(self, local: LocalRelease) -> Release:  # type: ignore[override]
        self._reached("load", local.versions.release_id)
        return Shop.load(local)

    def trial(self, release: Release) -> None:
        self._reached("trial", release.release_id)
        super().trial(release)

    def pin(self, versions: ReleaseVersions) -> None:
        digests = {kind: str(self.registry.version(kind, versions[kind]).digest) for kind in ArtifactKind}
        self.log.pin(Pin(versions, digests, "eve", "cli", "worse"))


@pytest.fixture
def shop(tmp_path: Path) -> Interrupted:
    shop = Interrupted(tmp_path)
    shop.produce(shop.write("a"))
    assert shop.look() is not None
    shop.produce(shop.write("b", range(1, 31)))
    return shop


def serves(watcher: ReleaseWatcher) -> str | None:
    return watcher.current.release_id if watcher.current else None


def restarted_without_mlflow(shop: Interrupted) -> str | None:
    shop.registry.down = True
    shop.log.pins.clear()  # MLflow had followed, so nothing in Postgres names the release any more
    shop.watcher = shop.new_watcher()
    shop.look()
    return serves(shop.watcher)


@pytest.mark.parametrize("step", STEPS)
def test_an_urgent_rollback_leaves_no_trace_of_the_release_that_was_being_tried(shop: Interrupted, step: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert go_on.wait(60)

    shop.when, shop.happens = (step, "e2-i2-r2"), wait
    remembered: list[str] = []
    remember = shop.cache.remember

    def noted(release: Release, stage: str) -> None:
        remembered.append(release.release_id)
        remember(release, stage)

    async def story() -> None:
        shop.cache.remember = noted  # type: ignore[method-assign, assignment]
        watcher = shop.watcher
        task = asyncio.create_task(watcher.run())
        await asyncio.to_thread(reached.wait, 60)
        shop.pin(ReleaseVersions(1, 1, 1))
        watcher.tried.clear()
        watcher.nudge(urgent=True)
        await asyncio.wait_for(watcher.tried.wait(), 60)  # the look was given up
        go_on.set()
        watcher.tried.clear()
        await asyncio.wait_for(watcher.tried.wait(), 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert serves(shop.watcher) == "e1-i1-r1"
    assert "e2-i2-r2" not in remembered
    assert not any((shop.root / "cache" / "good").rglob("e2-*"))
    assert restarted_without_mlflow(shop) == "e1-i1-r1"


@pytest.mark.parametrize("step", STEPS)
def test_a_pin_that_comes_during_a_trial_counts_before_anybody_has_cancelled_it(shop: Interrupted, step: str) -> None:
    shop.when, shop.happens = (step, "e2-i2-r2"), lambda: shop.pin(ReleaseVersions(1, 1, 1))
    assert serves_after_a_look(shop) == "e1-i1-r1"
    assert shop.watcher.refusal is None
    assert restarted_without_mlflow(shop) == "e1-i1-r1"


def test_what_was_given_up_is_tried_again_at_once_when_it_is_wanted_again(shop: Interrupted) -> None:
    shop.when, shop.happens = ("trial", "e2-i2-r2"), lambda: shop.pin(ReleaseVersions(1, 1, 1))
    assert serves_after_a_look(shop) == "e1-i1-r1"
    shop.log.pins.clear()
    assert serves_after_a_look(shop) == "e2-i2-r2"


def test_an_experiment_that_ends_during_the_trial_of_its_challenger_gets_none(shop: Interrupted) -> None:
    shop.look()
    challenger = shop.write("c", range(1, 41))
    for kind in ArtifactKind:
        shop.registry.transition_stage(kind, challenger[kind], STAGING)
    shop.wanted = True

    def end() -> None:
        shop.wanted = False

    shop.when, shop.happens = ("trial", challenger.release_id), end
    shop.look()
    assert shop.watcher.challenger is None
    assert not any((shop.root / "cache" / "good").rglob("e3-*"))


def test_a_pointer_that_somebody_else_left_behind_is_put_right_at_the_next_look(shop: Interrupted) -> None:
    shop.look()
    second = shop.watcher.current
    assert second is not None
    older = next(local for local in shop.cache.good() if local.versions.embedding == 1)
    ReleaseCache(shop.cache.root).remember(Shop.load(older))
    shop.look()
    assert shop.cache.begins_with(second)


def test_a_pin_on_other_bytes_of_the_same_numbers_is_not_what_serves(shop: Interrupted) -> None:
    shop.look()
    other: dict[Any, str] = dict.fromkeys(ArtifactKind, "0" * 64)
    shop.log.pin(Pin(ReleaseVersions(2, 2, 2), other, "eve", "cli"))
    shop.look()
    assert "made of other bytes" in str(shop.watcher.refusal)


def relearn(shop: Interrupted, name: str, people: range) -> None:
    """Delete the models and train anew, so that e1-i1-r1 in Production is made of other bytes."""
    shop.registry.start_anew()
    shop.produce(shop.write(name, people))


def test_other_bytes_under_the_numbers_that_serve_are_loaded_at_the_next_look(shop: Interrupted) -> None:
    relearn(shop, "c", range(1, 41))
    first = shop.look()
    assert first is not None
    relearn(shop, "d", range(1, 51))
    second = shop.look()
    assert second is not None
    assert first.release_id == second.release_id == "e1-i1-r1"
    assert len(second.embedding.user_ids) == 50
    assert shop.look() is second
    assert shop.cache.begins_with(second)


def test_other_bytes_of_a_challenger_are_loaded_at_the_next_look(shop: Interrupted) -> None:
    shop.wanted = True
    for name, people in (("c", range(1, 41)), ("d", range(1, 51))):
        relearn(shop, f"champion {name}", people)
        challenger = shop.write(name, people[:-1])
        for kind in ArtifactKind:
            shop.registry.transition_stage(kind, challenger[kind], STAGING)
        shop.look()
        assert shop.watcher.challenger is not None
        assert shop.watcher.challenger.release_id == "e2-i2-r2"
        assert len(shop.watcher.challenger.embedding.user_ids) == len(people) - 1


def test_a_refusal_of_other_bytes_of_the_same_numbers_keeps_none_waiting(shop: Interrupted) -> None:
    shop.fails = "e1-i1-r1"
    relearn(shop, "c", range(1, 41))
    with capture_logs():
        shop.look()
    assert "could not be loaded" in str(shop.watcher.refusal)
    shop.fails = None
    relearn(shop, "d", range(1, 51))
    release = shop.look()
    assert release is not None
    assert release.release_id == "e1-i1-r1"
    assert len(release.embedding.user_ids) == 50
    assert shop.watcher.refusal is None


def test_other_bytes_that_are_refused_reach_no_audit_as_what_serves(shop: Interrupted) -> None:
    relearn(shop, "c", range(1, 41))
    first = shop.look()
    shop.fails = "e1-i1-r1"
    relearn(shop, "d", range(1, 51))
    with capture_logs():
        assert shop.look() is first
    recorded = len(shop.log.promotions)
    shop.fails = None
    shop.clock.advance(61)
    second = shop.look()
    assert second is not None
    assert second is not first
    assert [entry.digests for entry in shop.log.promotions[recorded:]] == [second.identity.digests]


def test_a_disk_that_is_full_keeps_no_release_from_serving(shop: Interrupted, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shop.cache, "remember", full)
        assert serves_after_a_look(shop) == "e2-i2-r2"
        assert shop.watcher.refusal is None
    shop.look()
    assert restarted_without_mlflow(shop) == "e2-i2-r2"


def test_a_decision_that_nobody_cancelled_ends_when_what_it_rests_on_has_changed() -> None:
    stands = ["the pin"]
    decision = ReleaseDecision(lambda: bool(stands))

    async def work() -> None:
        with ThreadPoolExecutor(1) as threads:
            assert await decision.work(threads, lambda: 1) == 1
            await decision.work(threads, stands.clear)

    with pytest.raises(Overtaken, match="Another order came"):
        asyncio.run(work())


def serves_after_a_look(shop: Interrupted) -> str | None:
    shop.look()
    return serves(shop.watcher)


def test_a_pin_that_cannot_end_is_said_once_and_in_health(shop: Interrupted) -> None:
    shop.look()
    shop.pin(ReleaseVersions(1, 1, 1))
    shop.registry.forget(ArtifactKind.INDEX, 1)
    with capture_logs() as logs:
        for _ in range(3):
            assert serves_after_a_look(shop) == "e1-i1-r1"
    said = [line for line in logs if line["log_level"] == "warning"]
    assert [line["event"] for line in said] == ["pin_cannot_end"]
    assert "exc_info" not in said[0]
    assert "index version 1 was deleted in MLflow" in str(shop.watcher.pin_problem)
    shop.log.pins.clear()
    shop.look()
    assert shop.watcher.pin_problem is None


def test_an_audit_that_cannot_be_written_is_said_once_per_reason(shop: Interrupted) -> None:
    reasons = iter(["gone", "gone", "locked", "gone"])

    def refuse(*_: object) -> Any:
        raise AuditUnavailable(next(reasons))

    shop.watcher = shop.new_watcher()
    shop.watcher._observe = refuse
    with capture_logs() as logs:
        for _ in range(4):
            shop.look()
    assert [line["reason"] for line in logs if line["event"] == "audit_not_written"] == ["gone", "locked", "gone"]
