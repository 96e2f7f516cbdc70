"""A promotion that fails midway is undone, whatever failed: the registry, the audit, or who gave the order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from registry.contracts import (
    PRODUCTION,
    STAGING,
    ArtifactKind,
    ReleaseVersions,
)
from registry.errors import (
    AuditUnavailable,
    IncoherentRelease,
    PromotionFailed,
    RegistryUnavailable,
)
from registry.promotion.audit import Promotion
from tests.fakes import MemoryPromotionLog, MemoryRegistry
from tests.promotions import go, stages

EMBEDDING, INDEX, RANKER = ArtifactKind
FIRST, SECOND, THIRD = (ReleaseVersions(n, n, n) for n in (1, 2, 3))


@pytest.mark.parametrize("n_writes", range(6))
def test_a_failure_midway_moves_everything_back(
    registry: MemoryRegistry, log: MemoryPromotionLog, n_writes: int
) -> None:
    go(registry, log, FIRST)
    before = stages(registry)
    registry.fail_after(n_writes)
    with pytest.raises(PromotionFailed, match="nothing has changed"):
        go(registry, log, SECOND)
    assert stages(registry) == before
    assert registry.resolve_stage(PRODUCTION) == FIRST
    assert registry.aliases(INDEX) == {"champion": 1}
    assert len(log.promotions) == 1


@pytest.mark.parametrize("n_writes", range(6))
def test_a_challenger_whose_promotion_fails_midway_is_the_challenger_again(
    registry: MemoryRegistry, log: MemoryPromotionLog, n_writes: int
) -> None:
    go(registry, log, FIRST)
    go(registry, log, SECOND, stage=STAGING)
    registry.fail_after(n_writes)
    with pytest.raises(PromotionFailed, match="nothing has changed"):
        go(registry, log, SECOND)
    assert (registry.resolve_stage(PRODUCTION), registry.resolve_stage(STAGING)) == (FIRST, SECOND)
    assert registry.aliases(INDEX) == {"champion": 1, "challenger": 2}


def test_a_registry_that_stays_down_is_reported_and_a_second_run_completes(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    writes = iter(range(100))

    def die_at_the_second_move() -> None:
        if next(writes) == 1:
            registry.down = True
            raise RegistryUnavailable("gone")

    registry.before_write = die_at_the_second_move
    with pytest.raises(PromotionFailed, match="could not be moved back: run the command again"):
        go(registry, log, SECOND)
    registry.down = False
    with pytest.raises(IncoherentRelease):
        registry.resolve_stage(PRODUCTION)
    go(registry, log, SECOND)
    assert registry.resolve_stage(PRODUCTION) == SECOND
    assert [entry.versions for entry in log.promotions] == [FIRST, SECOND]


class LostLog(MemoryPromotionLog):
    """An audit whose database goes away just before the record is committed, and what happens before that is known."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        with super().exclusively():
            yield
            self.promotions.clear()
        self._meanwhile()
        raise AuditUnavailable("The database is gone.")


def test_a_promotion_whose_record_is_lost_at_the_end_is_moved_back(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    with pytest.raises(PromotionFailed, match=r"\(The database is gone\.\) and nothing has changed\."):
        go(registry, LostLog(lambda: None), SECOND)
    assert registry.resolve_stage(PRODUCTION) == FIRST


def test_a_promotion_whose_record_is_lost_leaves_what_somebody_else_has_moved_since(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    with pytest.raises(PromotionFailed, match="because the stage changed meanwhile, could not be moved back"):
        go(registry, LostLog(lambda: go(registry, log, THIRD)), SECOND)
    assert registry.resolve_stage(PRODUCTION) == THIRD


def test_a_promotion_that_moved_nothing_says_only_that_the_record_is_out_of_reach(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    with pytest.raises(AuditUnavailable):
        go(registry, LostLog(lambda: None), FIRST)
    assert registry.resolve_stage(PRODUCTION) == FIRST


def test_a_promotion_that_is_interrupted_says_so_and_moves_back_every_version_that_it_displaced(
    registry: MemoryRegistry, log: MemoryPromotionLog
) -> None:
    go(registry, log, FIRST)
    registry.transition_stage(RANKER, 3, PRODUCTION, archive_existing=False)  # by hand: two stand there
    before = stages(registry)
    writes = iter(range(100))

    def interrupt_the_last_move() -> None:
        if next(writes) == 2:
            raise KeyboardInterrupt

    registry.before_write = interrupt_the_last_move
    with pytest.raises(PromotionFailed, match=r"\(KeyboardInterrupt\) and nothing has changed"):
        go(registry, log, SECOND)
    assert stages(registry) == before


def test_an_audit_that_cannot_be_written_moves_nothing(
    registry: MemoryRegistry, log: MemoryPromotionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Promotion) -> None:
        raise ConnectionError("database gone")

    monkeypatch.setattr(log, "record", refuse)
    with pytest.raises(ConnectionError):
        go(registry, log, FIRST)
    assert registry.in_stage(PRODUCTION) == {}
