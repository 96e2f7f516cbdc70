import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feature_repo.layout import RANKING_FEATURES
from feature_repo.schema import ranking_schema_digest
from infra.clock import FixedClock
from infra.metrics import serving_metrics
from infra.settings import Settings
from registry.cache import LocalRelease, ReleaseCache
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.promotion import record_observed
from registry.release import Release, load_release
from serving.reasons import Reason
from serving.releases import ReleaseWatcher
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import register_release
from tests.serving_world import write_artifacts

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
        self.fails: str | None = None
        self.watcher = self.new_watcher()

    def new_watcher(self) -> ReleaseWatcher:
        return ReleaseWatcher(
            registry=self.registry,
            cache=self.cache,
            feature_schema_digest=ranking_schema_digest(),
            load=self.load,
            trial=self.trial,
            record=lambda registry: record_observed(registry, self.log),
            poll_s=1.0,
            clock=self.clock,
            metrics=serving_metrics(),
        )

    @staticmethod
    def load(local: LocalRelease) -> Release:
        return load_release(
            local.directories,
            local.versions,
            feature_schema_digest=ranking_schema_digest(),
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


def test_copies_of_long_gone_releases_do_not_fill_the_disk(shop: Shop) -> None:
    for size in range(20, 26):
        shop.produce(shop.write(f"release of {size}", range(1, size)))
        assert shop.look() is not None
    for kind in ArtifactKind:
        kept = sorted(path.name.partition("-")[0] for path in (shop.root / "cache" / kind.value).glob("[0-9]*"))
        assert kept == ["3", "4", "5", "6"]


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
