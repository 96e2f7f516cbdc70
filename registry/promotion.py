"""Moving a coherent release between stages: checked and verified first, audited with the move, undone if it fails.

A promotion is three transitions in MLflow, which cannot be one transaction. So the embedding moves first and the index
last: whoever looks in between finds an index that does not match and keeps the last good release. A crash in between
is completed by running the same command again.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from registry.audit import ROLLED_BACK_FROM, Promotion, PromotionLog, Way, standing_releases
from registry.cache import ReleaseCache
from registry.contracts import (
    ARCHIVED,
    NO_STAGE,
    PRODUCTION,
    STAGE_ALIASES,
    STAGING,
    ArtifactKind,
    ModelVersion,
    ReleaseVersions,
)
from registry.errors import (
    AuditUnavailable,
    IncoherentRelease,
    NothingToRollBackTo,
    PromotionConflict,
    PromotionFailed,
    RegistryError,
    UnknownVersion,
)
from registry.gates import gates_of_observed, require_passed
from registry.release import check_coherence
from registry.store import ModelRegistry, check_tags

_ORDER: Final = (ArtifactKind.EMBEDDING, ArtifactKind.RANKER, ArtifactKind.INDEX)


def promote(
    registry: ModelRegistry,
    log: PromotionLog,
    versions: ReleaseVersions,
    *,
    actor: str,
    way: Way,
    reason: str = "",
    stage: str = PRODUCTION,
    feature_schema_digest: str | None = None,
    force: bool = False,
    cache: ReleaseCache | None = None,
) -> ReleaseVersions:
    """Move a release that passed its gates to a stage and record it; doing it again changes nothing.

    `force` overrules the gates and needs a `reason`; the audit tells both. Every byte is fetched and verified before
    anything moves; with a `cache` it is then already where serving looks. Raises UnknownVersion, IncoherentRelease,
    GatesNotPassed, ForceWithoutReason or CorruptArtifact before any move, PromotionConflict if another promotion is
    under way, PromotionFailed after having moved back what was moved.
    """
    if stage not in STAGE_ALIASES:
        raise UnknownVersion(f"`{stage}` is not a stage to promote to: choose {' or '.join(STAGE_ALIASES)}.")
    check_tags({kind: registry.version(kind, versions[kind]) for kind in ArtifactKind}, feature_schema_digest)
    gates = require_passed(registry, versions, force=force, reason=reason)
    verify_release(registry, versions, feature_schema_digest, cache)
    _move(registry, log, Promotion(versions, stage, actor, way, reason, gates), feature_schema_digest)
    return versions


def rollback(
    registry: ModelRegistry,
    log: PromotionLog,
    *,
    actor: str,
    way: Way,
    reason: str = "",
    to: ReleaseVersions | None = None,
    feature_schema_digest: str | None = None,
    cache: ReleaseCache | None = None,
) -> ReleaseVersions:
    """Move an earlier release back to Production: `to`, or the one before the current according to the audit.

    Raises NothingToRollBackTo where there is no earlier one, else what `promote` raises.
    """
    standing = standing_releases(log.history(PRODUCTION))
    current = _resolved(registry, PRODUCTION)
    if current is not None and (not standing or standing[-1] != current):
        standing.append(current)  # moved by hand and not recorded yet
    if current is None and standing:
        standing.append(standing[-1])  # nothing usable stands there: the last recorded release is the one to restore
    target = to or (standing[-2] if len(standing) > 1 else None)
    if target is None:
        raise NothingToRollBackTo("The audit knows no earlier release: promote one with `duet promote`.")
    left = current or (standing[-1] if standing else None)
    verify_release(registry, target, feature_schema_digest, cache)
    promotion = Promotion(
        target,
        PRODUCTION,
        actor,
        way,
        reason,
        {ROLLED_BACK_FROM: left.release_id if left else "nothing"},
    )
    _move(registry, log, promotion, feature_schema_digest, instead_of=(current,))
    return target


def record_observed(registry: ModelRegistry, log: PromotionLog, stage: str = PRODUCTION) -> ReleaseVersions | None:
    """Record a release that was moved by hand, bring the aliases in step, and return it; None if nothing is new.

    An incoherent stage is not a release and is not recorded; a promotion under way records itself.
    """
    observed = _resolved(registry, stage)
    if observed is None or _last(log, stage) == observed:
        return None
    try:
        with log.exclusively():
            if _resolved(registry, stage) != observed or _last(log, stage) == observed:
                return None
            gates = gates_of_observed(registry, observed)
            log.record(Promotion(observed, stage, "mlflow", "ui", "stage moved in MLflow", gates))
            sync_aliases(registry)
    except PromotionConflict:
        return None
    return observed


def sync_aliases(registry: ModelRegistry) -> None:
    """Point `champion` and `challenger` at what stands in Production and Staging; an empty Staging has no alias."""
    for stage, alias in STAGE_ALIASES.items():
        resolved = _resolved(registry, stage)
        for kind in ArtifactKind:
            present = registry.aliases(kind).get(alias)
            if resolved is not None and present != resolved[kind]:
                registry.set_alias(kind, alias, resolved[kind])
            elif resolved is None and present is not None and not registry.in_stage(stage):
                registry.delete_alias(kind, alias)


def verify_release(
    registry: ModelRegistry,
    versions: ReleaseVersions,
    feature_schema_digest: str | None = None,
    cache: ReleaseCache | None = None,
) -> None:
    """Check the tags, then every byte and the manifests of a release, without moving anything."""
    check_tags({kind: registry.version(kind, versions[kind]) for kind in ArtifactKind}, feature_schema_digest)
    if cache is not None:
        check_coherence(cache.fetch(registry, versions).manifests, feature_schema_digest)
        return
    with tempfile.TemporaryDirectory(prefix="duet-verify-") as folder:
        fetched = ReleaseCache(Path(folder)).fetch(registry, versions)
        check_coherence(fetched.manifests, feature_schema_digest)


_Done = list[tuple[ModelVersion, list[ModelVersion]]]


def _move(
    registry: ModelRegistry,
    log: PromotionLog,
    promotion: Promotion,
    feature_schema_digest: str | None,
    *,
    instead_of: tuple[ReleaseVersions | None, ...] = (),
) -> None:
    """Move and record under the lock; `instead_of` holds the only releases that may stand in the stage before."""
    done: _Done = []
    try:
        with log.exclusively():
            if instead_of and _resolved(registry, promotion.stage) not in instead_of:
                raise PromotionConflict(
                    f"{promotion.stage} changed while this was prepared: look at `duet releases`, then retry."
                )
            try:
                _move_and_record(registry, log, promotion, feature_schema_digest, done)
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
        moved_on = _resolved(registry, promotion.stage) != promotion.versions
        left = "it, because the stage changed meanwhile," if moved_on else _undo(registry, done, promotion.stage)
        raise _failure(promotion, error, left) from error


def _failure(promotion: Promotion, error: BaseException, left: str) -> PromotionFailed:
    outcome = f"and {left} could not be moved back: run the command again." if left else "and nothing has changed."
    reason = str(error) or type(error).__name__
    return PromotionFailed(f"{promotion.versions.release_id} was not moved to {promotion.stage} ({reason}) {outcome}")


def _move_and_record(
    registry: ModelRegistry,
    log: PromotionLog,
    promotion: Promotion,
    feature_schema_digest: str | None,
    done: _Done,
) -> None:
    versions, stage = promotion.versions, promotion.stage
    wanted = {kind: registry.version(kind, versions[kind]) for kind in ArtifactKind}
    check_tags(wanted, feature_schema_digest)
    moves = [move for kind in _ORDER for move in _moves(registry, wanted[kind], stage)]
    if moves or _last(log, stage) != versions:
        # Recorded first: a database that refuses the record refuses the promotion while nothing has moved.
        log.record(replace(promotion, from_stages={kind: version.stage for kind, version in wanted.items()}))
    for version, target in moves:
        displaced = registry.versions_in_stage(version.kind, target) if target != ARCHIVED else []
        done.append((version, displaced))
        registry.transition_stage(version.kind, version.version, target, archive_existing=target != ARCHIVED)
    sync_aliases(registry)


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


def _resolved(registry: ModelRegistry, stage: str) -> ReleaseVersions | None:
    try:
        return registry.resolve_stage(stage)
    except IncoherentRelease:
        return None


def _last(log: PromotionLog, stage: str) -> ReleaseVersions | None:
    history = log.history(stage, limit=1)
    return history[-1].versions if history else None
