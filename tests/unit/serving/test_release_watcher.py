import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import offered_schema
from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import TrialFailed
from registry.mlflow.observer import observe
from registry.models.artifacts import read_manifest
from registry.promotion.release_cache import LocalRelease, ReleaseCache
from registry.release import Release, load_release
from serving.errors import BreakerOpen
from serving.reasons import Reason
from serving.releases.slot import RETRY_REFUSED_S
from serving.releases.stage_view import unguarded
from serving.releases.watcher import ReleaseWatcher
from tests.clocks import FixedClock
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import register_release
from tests.resident import only_where_told, resident_kb
from tests.serving_world import ranker, write_artifacts

PEOPLE = range(1, 21)


class Shop:
    """A registry with one release in Production, and a watcher on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = MemoryRegistry()
        self.log = MemoryPromotionLog()
        self.clock = FixedClock(datetime(2026, 6, 1, tzinfo=UTC))
        self.cache = ReleaseCache(root / "cache")
        self.trials: list[str] = []
        self.proven: list[str] = []
        self.wanted = False
        self.prove: Callable[[LocalRelease], None] = self._prove
        self.guard: Any = unguarded
        self.fails: str | None = None
        self.watcher = self.new_watcher()

    def _prove(self, local: LocalRelease) -> None:
        self.proven.append(local.versions.release_id)

    def new_watcher(self, settle_s: float = 0.0) -> ReleaseWatcher:
        return ReleaseWatcher(
            registry=self.registry,
            cache=self.cache,
            feature_schema=offered_schema(),
            prove=self.prove,
            load=self.load,
            trial=self.trial,
            observe=lambda registry, stages, honoured: observe(registry, self.log, stages, honoured),
            pinned=self.log.open_pin,
            poll_s=1.0,
            clock=self.clock,
            metrics=serving_metrics(),
            challenger_wanted=lambda: self.wanted,
            guard=self.guard,
            settle_s=settle_s,
        )

    @staticmethod
    def load(local: LocalRelease) -> Release:
        return load_release(
            local.directories,
            local.versions,
            feature_schema=offered_schema(),
            feature_names=RANKING_FEATURES,
            expected_digests=local.digests,
        )

    def trial(self, release: Release) -> None:
        self.trials.append(release.release_id)
        if release.release_id == self.fails:
            raise ValueError("NaN everywhere")

    def write(self, name: str, people: range = PEOPLE, schema: str | None = None) -> ReleaseVersions:
        return register_release(self.registry, write_artifacts(self.root / name, people, schema=schema))

    def produce(self, versions: ReleaseVersions) -> None:
        for kind in ArtifactKind:
            self.registry.transition_stage(kind, versions[kind], PRODUCTION)

    def look(self) -> Release | None:
        asyncio.run(self.watcher.step())
        return self.watcher.current


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_an_empty_registry_is_no_release_and_no_error(shop: Shop) -> None:
    assert shop.look() is None
    assert shop.watcher.refusal is None
    assert shop.watcher.absence().reason is Reason.NO_RELEASE


def test_what_stands_in_production_serves_and_is_tried_first(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    release = shop.look()
    assert release is not None
    assert release.release_id == "e1-i1-r1"
    assert shop.trials == ["e1-i1-r1"]
    assert shop.look() is release
    assert shop.registry.downloads == 3


@only_where_told
def test_the_pages_of_a_release_that_leaves_are_forgotten_before_its_last_request_ends(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    old = shop.look()
    assert old is not None
    (mapped,) = (shop.root / "cache" / "embedding").glob("1-*")
    assert resident_kb(mapped)
    shop.produce(shop.write("b", range(1, 31)))
    new = shop.look()
    assert new is not old
    assert resident_kb(mapped) == 0
    assert np.isfinite(old.embedding.chosen).all()


def test_copies_of_long_gone_releases_do_not_fill_the_disk(shop: Shop) -> None:
    for size in range(20, 26):
        shop.produce(shop.write(f"release of {size}", range(1, size)))
        assert shop.look() is not None
    for kind in ArtifactKind:
        kept = sorted(path.name.partition("-")[0] for path in (shop.root / "cache" / kind.value).glob("[0-9]*"))
        assert kept == ["2", "3", "4", "5", "6"]


def test_a_stage_moved_by_hand_is_written_to_the_audit_once(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    shop.look()
    shop.look()
    assert [(promotion.way, promotion.versions.release_id) for promotion in shop.log.promotions] == [("ui", "e1-i1-r1")]


def test_an_incoherent_promotion_is_refused_and_the_last_good_keeps_serving(shop: Shop) -> None:
    good = shop.write("a")
    other = shop.write("b", range(1, 31))
    shop.produce(good)
    shop.look()
    shop.registry.transition_stage(ArtifactKind.INDEX, other.index, PRODUCTION)
    release = shop.look()
    assert release is not None
    assert release.release_id == "e1-i1-r1"
    assert "was built from embedding" in (shop.watcher.refusal or "")
    shop.registry.transition_stage(ArtifactKind.EMBEDDING, other.embedding, PRODUCTION)
    swapped = shop.look()
    assert swapped is not None
    assert swapped.versions.index == 2
    assert shop.watcher.refusal is None


def test_another_feature_schema_is_refused(shop: Shop) -> None:
    shop.produce(shop.write("a", schema="0" * 64))
    assert shop.look() is None
    assert shop.watcher.absence().reason is Reason.RELEASE_REFUSED
    assert "feature schema" in str(shop.watcher.absence())


def test_a_release_that_fails_its_trial_never_serves_and_is_not_tried_again_at_once(shop: Shop) -> None:
    shop.fails = "e1-i1-r1"
    shop.produce(shop.write("a"))
    assert shop.look() is None
    assert shop.look() is None
    assert shop.trials == ["e1-i1-r1"]
    shop.clock.advance(61)
    shop.fails = None
    assert shop.look() is not None


def test_corrupt_bytes_are_refused_and_the_old_release_stays(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    shop.look()
    second = shop.write("b", range(1, 31))
    path = shop.root / "b" / "embedding" / "chooser.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    shop.produce(second)
    release = shop.look()
    assert release is not None
    assert release.versions.embedding == 1
    assert shop.watcher.refusal


def test_without_the_registry_the_last_good_copy_serves(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    shop.look()
    shop.registry.down = True
    restarted = shop.watcher = shop.new_watcher()
    release = shop.look()
    assert release is not None
    assert release.release_id == "e1-i1-r1"
    assert restarted.refusal is None


def test_a_last_good_copy_that_fails_is_not_loaded_again_at_each_look(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    shop.look()
    shop.registry.down = True
    shop.fails = "e1-i1-r1"
    shop.watcher = shop.new_watcher()
    shop.trials.clear()
    for _ in range(3):
        assert shop.look() is None
        assert "NaN everywhere" in str(shop.watcher.absence())
    assert shop.trials == ["e1-i1-r1"]
    shop.fails = None
    shop.clock.advance(RETRY_REFUSED_S)
    assert shop.look() is not None


def test_without_the_registry_and_without_a_copy_the_reason_is_told(shop: Shop) -> None:
    shop.registry.down = True
    assert shop.look() is None
    assert shop.watcher.absence().reason is Reason.RELEASE_REFUSED


def test_rolling_back_needs_no_second_download(shop: Shop) -> None:
    first, second = shop.write("a"), shop.write("b", range(1, 31))
    for versions in (first, second, first):
        shop.produce(versions)
        release = shop.look()
        assert release is not None
        assert release.versions == versions
    assert shop.registry.downloads == 6 - (first.ranker == second.ranker)


def test_the_settings_say_how_often_to_look(settings: Settings) -> None:
    assert settings.serving.release_poll_s <= 10


def stage(shop: Shop, versions: ReleaseVersions) -> None:
    for kind in ArtifactKind:
        shop.registry.transition_stage(kind, versions[kind], STAGING)


def test_the_challenger_is_loaded_only_while_an_experiment_is_active(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    stage(shop, shop.write("b", range(1, 31)))
    shop.look()
    assert shop.watcher.challenger is None
    shop.wanted = True
    shop.look()
    assert shop.watcher.challenger is not None
    assert shop.watcher.challenger.versions.embedding == 2
    shop.wanted = False
    shop.look()
    assert shop.watcher.challenger is None
    assert shop.watcher.current is not None


def test_a_challenger_takes_the_parts_it_lacks_from_production(shop: Shop) -> None:
    first = shop.write("a")
    shop.produce(first)
    other = shop.registry.register(ArtifactKind.RANKER, rewritten_ranker(shop.root / "a" / "ranker"))
    shop.registry.transition_stage(ArtifactKind.RANKER, other, STAGING)
    shop.wanted = True
    shop.look()
    assert shop.watcher.challenger is not None
    assert shop.watcher.challenger.release_id == "e1-i1-r2"
    assert shop.watcher.current is not None
    assert shop.watcher.current.release_id == "e1-i1-r1"


def test_a_refused_challenger_leaves_the_champion_alone_and_says_why(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    shop.look()
    shop.fails = "e2-i2-r2"
    stage(shop, shop.write("b", range(1, 31)))
    shop.wanted = True
    shop.look()
    assert shop.watcher.challenger is None
    assert shop.watcher.refusal is None
    assert "ValueError" in (shop.watcher.challenger_refusal or "")
    assert "ValueError" in shop.watcher.challenger_absence()


def test_a_challenger_that_leaves_staging_is_over(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    second = shop.write("b", range(1, 31))
    stage(shop, second)
    shop.wanted = True
    shop.look()
    shop.produce(second)
    release = shop.look()
    assert release is not None
    assert release.versions == second
    assert shop.watcher.challenger is None
    assert "No release is in Staging" in shop.watcher.challenger_absence()


def test_without_the_registry_the_last_good_challenger_serves_too(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    stage(shop, shop.write("b", range(1, 31)))
    shop.wanted = True
    shop.look()
    shop.registry.down = True
    shop.watcher = shop.new_watcher()
    shop.look()
    assert shop.watcher.current is not None
    assert shop.watcher.challenger is not None
    assert shop.watcher.current.versions.embedding == 1
    assert shop.watcher.challenger.versions.embedding == 2


def test_only_a_release_that_never_served_here_is_tried_aside(shop: Shop) -> None:
    shop.produce(shop.write("a"))
    shop.look()
    assert shop.proven == ["e1-i1-r1"]
    shop.watcher = shop.new_watcher()
    shop.look()
    assert shop.proven == ["e1-i1-r1"]


def test_a_release_that_fails_aside_is_never_loaded_here(shop: Shop) -> None:
    def refuse(local: LocalRelease) -> None:
        raise TrialFailed(f"Release {local.versions.release_id} was tried and ended by SIGSEGV.")

    shop.prove = refuse
    shop.watcher = shop.new_watcher()
    shop.produce(shop.write("a"))
    assert shop.look() is None
    assert not shop.trials
    assert "SIGSEGV" in (shop.watcher.refusal or "")


def test_fifty_promotions_in_a_row_are_few_swaps_and_end_at_the_last(shop: Shop) -> None:
    releases = [shop.write("a"), shop.write("b", range(1, 31)), shop.write("c", range(1, 41))]
    shop.produce(releases[0])
    shop.look()
    shop.trials.clear()

    async def storm() -> None:
        watcher = shop.watcher = shop.new_watcher(settle_s=0.05)
        await watcher.step()
        task = asyncio.create_task(watcher.run())
        for number in range(50):
            shop.produce(releases[number % 3])
            await asyncio.sleep(0.02)
        shop.produce(releases[2])
        async with asyncio.timeout(10):
            while watcher.current is None or watcher.current.versions != releases[2]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(storm())
    assert len(shop.trials) <= 12
    assert shop.watcher.refusal is None


@pytest.mark.parametrize("failure", [TimeoutError(), BreakerOpen("Calls to mlflow failed.", retry_after_s=1.0)])
def test_a_registry_that_is_not_asked_or_never_answers_leaves_the_last_good(shop: Shop, failure: Exception) -> None:
    shop.produce(shop.write("a"))
    shop.look()

    async def never(operation: object, timeout_s: float) -> Any:
        raise failure

    shop.guard = never
    shop.watcher = shop.new_watcher()
    release = shop.look()
    assert release is not None
    assert release.release_id == "e1-i1-r1"


def rewritten_ranker(path: Path) -> Path:
    """Write a ranker of other bytes that belongs to the same embedding."""
    manifest = read_manifest(path)
    target = path.with_name("ranker-again")
    other = ranker()
    other.save(target, {**manifest.lineage, "again": "yes"}, parameters={"last_likes": 20})
    return target
