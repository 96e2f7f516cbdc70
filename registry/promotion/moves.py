"""The moves of a promotion in MLflow: three transitions that cannot be one transaction, in an order that is safe.

The embedding moves first and the index last: whoever looks in between finds an index that does not match and keeps the
last good release. A crash in between is completed by running the same command again, or forward by an open pin.
"""

from dataclasses import replace
from typing import Final

from infra.faults import failpoint
from registry.contracts import (
    ARCHIVED,
    NO_STAGE,
    PRODUCTION,
    STAGE_ALIASES,
    STAGING,
    ArtifactKind,
    ModelVersion,
    ReleaseIdentity,
    ReleaseVersions,
)
from registry.errors import (
    AuditUnavailable,
    IncoherentRelease,
    PromotionFailed,
    RegistryError,
)
from registry.promotion.audit import Promotion, PromotionLog
from registry.promotion.history import release_at
from registry.store import ModelRegistry, check_tags, identity_of

_ORDER: Final = (ArtifactKind.EMBEDDING, ArtifactKind.RANKER, ArtifactKind.INDEX)
_Done = list[tuple[ModelVersion, list[ModelVersion]]]


def move(registry: ModelRegistry, log: PromotionLog, promotion: Promotion, feature_schema: str | None) -> None:
    """Move a release to its stage and record it, under the lock; undo everything if any of it fails."""
    done: _Done = []
    try:
        with log.exclusively():
            try:
                _move_and_record(registry, log, promotion, feature_schema, done)
            except (RegistryError, KeyboardInterrupt) as error:
                if not done:
                    raise
                left = _undo(registry, done, promotion.stage)
                done.clear()
                raise _failure(promotion, error, left) from error
    except AuditUnavailable as error:
        # The record was lost at the very end, and with it the lock: undo unless somebody else has moved on.
        if not done:
            raise
        standing = resolved(registry, promotion.stage)
        moved_on = standing is None or standing.versions != promotion.versions
        left = "it, because the stage changed meanwhile," if moved_on else _undo(registry, done, promotion.stage)
        raise _failure(promotion, error, left) from error


def move_forward(registry: ModelRegistry, versions: ReleaseVersions, stage: str) -> None:
    """Move what of a release is not in its stage yet, and bring the aliases in step; what fails is to be repeated."""
    for kind in _ORDER:
        for version, target in _moves(registry, registry.version(kind, versions[kind]), stage):
            registry.transition_stage(kind, version.version, target, archive_existing=target != ARCHIVED)
            failpoint(f"pin.after_{kind.value}")
    sync_aliases(registry)


def sync_aliases(registry: ModelRegistry) -> None:
    """Point `champion` and `challenger` at what stands in Production and Staging; an empty Staging has no alias."""
    for stage, alias in STAGE_ALIASES.items():
        standing = resolved(registry, stage)
        for kind in ArtifactKind:
            present = registry.aliases(kind).get(alias)
            if standing is not None and present != standing.versions[kind]:
                registry.set_alias(kind, alias, standing.versions[kind])
            elif standing is None and present is not None and not registry.in_stage(stage):
                registry.delete_alias(kind, alias)


def resolved(registry: ModelRegistry, stage: str) -> ReleaseIdentity | None:
    """Return the coherent release in a stage, None without one."""
    try:
        return registry.identify_stage(stage)
    except IncoherentRelease:
        return None


def _failure(promotion: Promotion, error: BaseException, left: str) -> PromotionFailed:
    outcome = f"and {left} could not be moved back: run the command again." if left else "and nothing has changed."
    reason = str(error) or type(error).__name__
    return PromotionFailed(f"{promotion.versions.release_id} was not moved to {promotion.stage} ({reason}) {outcome}")


def _move_and_record(
    registry: ModelRegistry,
    log: PromotionLog,
    promotion: Promotion,
    feature_schema: str | None,
    done: _Done,
) -> None:
    versions, stage = promotion.versions, promotion.stage
    wanted = {kind: registry.version(kind, versions[kind]) for kind in ArtifactKind}
    check_tags(wanted, feature_schema)
    moves = [(*step, kind) for kind in _ORDER for step in _moves(registry, wanted[kind], stage)]
    last = release_at(log, stage=stage)
    identity = identity_of(wanted)
    if moves or last is None or not last.identity.agrees_with(identity):
        # Recorded first: a database that refuses the record refuses the promotion while nothing has moved.
        log.record(
            replace(
                promotion,
                from_stages={kind: version.stage for kind, version in wanted.items()},
                digests=identity.digests,
            )
        )
    if stage == PRODUCTION:
        log.close_pin(f"{versions.release_id} was promoted")
    failpoint("promotion.after_record")
    for version, target, kind in moves:
        displaced = registry.versions_in_stage(version.kind, target) if target != ARCHIVED else []
        done.append((version, displaced))
        registry.transition_stage(version.kind, version.version, target, archive_existing=target != ARCHIVED)
        failpoint(f"promotion.after_{kind.value}")
    sync_aliases(registry)
    failpoint("promotion.after_aliases")


def _moves(registry: ModelRegistry, version: ModelVersion, stage: str) -> list[tuple[ModelVersion, str]]:
    if stage == STAGING and version.stage == PRODUCTION:
        # It serves already and stands in one stage only: free Staging, and it is found in Production.
        return [(other, ARCHIVED) for other in registry.versions_in_stage(version.kind, STAGING)]
    alone = [other.version for other in registry.versions_in_stage(version.kind, stage)] == [version.version]
    return [] if alone else [(version, stage)]


def _undo(registry: ModelRegistry, done: _Done, stage: str) -> str:
    """Move everything back and name what could not be."""
    stuck: list[str] = []
    for version, displaced in reversed(done):
        try:
            registry.transition_stage(version.kind, version.version, version.stage or NO_STAGE, archive_existing=False)
            for other in displaced:
                if other.version != version.version:
                    registry.transition_stage(other.kind, other.version, stage, archive_existing=False)
        except RegistryError:
            stuck.append(f"{version.kind} {version.version}")
    if not stuck:
        try:
            sync_aliases(registry)
        except RegistryError:
            stuck.append("the aliases")
    return ", ".join(stuck)
