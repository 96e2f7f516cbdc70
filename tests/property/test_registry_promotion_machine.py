"""Whatever is promoted, rolled back, moved by hand or killed midway: Production is one coherent release or is refused.

Serving keeps its last good release while it is refused, and running the interrupted command again completes it.
"""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import IncoherentRelease, NothingToRollBackTo, PromotionFailed
from registry.mlflow.observer import observe
from registry.promotion.history import standing_releases
from registry.promotion.promotion import promote, rollback
from registry.promotion.release_cache import ReleaseCache
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.releases import digest_of, judge, register_release, write_release

N = 3
numbers = st.integers(1, N)


class Killed(BaseException):
    """The process ended here: nobody can clean up."""


@functools.cache
def written() -> list[dict[ArtifactKind, Path]]:
    root = Path(tempfile.mkdtemp(prefix="duet-machine-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return [write_release(root, seed) for seed in range(N)]


class Promotions(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="duet-cache-"))
        self.registry, self.log = MemoryRegistry(), MemoryPromotionLog()
        self.cache = ReleaseCache(self.folder)
        for paths in written():
            register_release(self.registry, paths)
        pairs = range(1, N + 1)
        judge(self.registry, *(ReleaseVersions(pair, pair, ranker) for pair in pairs for ranker in pairs))
        self.serving: ReleaseVersions | None = None
        self.coherent = {
            digest_of(paths[ArtifactKind.EMBEDDING]): digest_of(paths[ArtifactKind.INDEX]) for paths in written()
        }

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _promote(self, versions: ReleaseVersions, stage: str = PRODUCTION) -> None:
        promote(
            self.registry,
            self.log,
            versions,
            actor="ada",
            way="cli",
            feature_schema=None,
            stage=stage,
            cache=self.cache,
        )

    @rule(pair=numbers, ranker=numbers)
    def promote_coherent(self, pair: int, ranker: int) -> None:
        versions = ReleaseVersions(pair, pair, ranker)
        self._promote(versions)
        assert self.registry.resolve_stage() == versions
        assert self.log.history()[-1].versions == versions

    @rule(pair=numbers, ranker=numbers)
    def stage_challenger(self, pair: int, ranker: int) -> None:
        champion = self._resolved()
        versions = ReleaseVersions(pair, pair, ranker)
        self._promote(versions, STAGING)
        assert self._resolved() == champion, "a challenger never moves the champion"
        if champion != versions:
            assert self.registry.resolve_stage(STAGING) == versions

    @rule(embedding=numbers, index=numbers, ranker=numbers)
    def promote_anything(self, embedding: int, index: int, ranker: int) -> None:
        before = self._resolved()
        try:
            self._promote(ReleaseVersions(embedding, index, ranker))
        except IncoherentRelease:
            assert embedding != index
            assert self._resolved() == before

    @rule(pair=numbers, ranker=numbers, n_writes=st.integers(0, 8))
    def promote_while_the_registry_fails(self, pair: int, ranker: int, n_writes: int) -> None:
        before = self._resolved()
        self.registry.fail_after(n_writes)
        try:
            self._promote(ReleaseVersions(pair, pair, ranker))
        except PromotionFailed:
            assert self._resolved() == before
        finally:
            self.registry.fail_after(1_000_000)

    @rule(pair=numbers, ranker=numbers, n_writes=st.integers(0, 8))
    def be_killed_while_promoting_then_run_again(self, pair: int, ranker: int, n_writes: int) -> None:
        versions = ReleaseVersions(pair, pair, ranker)
        before = self._resolved()
        writes = iter(range(1_000))

        def die() -> None:
            if next(writes) == n_writes:
                raise Killed

        self.registry.before_write = die
        try:
            self._promote(versions)
        except Killed:
            self._look()
            if before is not None and before.embedding != versions.embedding:
                assert self._resolved() in {before, versions, None}, "no mixture is ever coherent"
        finally:
            self.registry.before_write = lambda: None
        self._promote(versions)
        assert self.registry.resolve_stage() == versions

    @rule()
    def roll_back(self) -> None:
        current, standing = self._resolved(), standing_releases(self.log.history())
        try:
            target = rollback(self.registry, self.log, actor="ada", way="cli", feature_schema=None, cache=self.cache)
        except NothingToRollBackTo:
            assert len({*standing, *({current} if current else ())}) <= 1
            return
        assert self.registry.resolve_stage() == target
        assert target != current

    @rule(kind=st.sampled_from(ArtifactKind), version=numbers)
    def move_by_hand(self, kind: ArtifactKind, version: int) -> None:
        self.registry.transition_stage(kind, version, PRODUCTION)
        observe(self.registry, self.log)

    @rule(kind=st.sampled_from(ArtifactKind), version=numbers)
    def archive_by_hand(self, kind: ArtifactKind, version: int) -> None:
        self.registry.transition_stage(kind, version, "Archived", archive_existing=False)

    def _resolved(self) -> ReleaseVersions | None:
        try:
            return self.registry.resolve_stage()
        except IncoherentRelease:
            return None

    def _look(self) -> None:
        """Do what serving does at every poll."""
        self.serving = self._resolved() or self.serving

    @invariant()
    def what_serves_is_always_one_coherent_release(self) -> None:
        if not hasattr(self, "registry"):
            return
        had = self.serving is not None
        self._look()
        assert self.serving is not None or not had
        if self.serving is None:
            return
        digest = {kind: self.registry.version(kind, self.serving[kind]).digest for kind in ArtifactKind}
        assert self.coherent[str(digest[ArtifactKind.EMBEDDING])] == digest[ArtifactKind.INDEX]

    @invariant()
    def the_log_is_unlocked_and_every_entry_is_coherent(self) -> None:
        if not hasattr(self, "log"):
            return
        assert not self.log.locked
        for entry in self.log.promotions:
            assert entry.versions.embedding == entry.versions.index

    @invariant()
    def at_most_one_version_of_a_model_serves(self) -> None:
        if not hasattr(self, "registry"):
            return
        for kind in ArtifactKind:
            assert len(self.registry.versions_in_stage(kind, PRODUCTION)) <= 1


TestPromotions = Promotions.TestCase
TestPromotions.settings = settings(max_examples=40, stateful_step_count=20, deadline=None, database=None)
