"""Moving a coherent release between stages: checked and verified first, audited with the move, undone if it fails.

A rollback needs no MLflow: the release that it goes back to is known to the audit and lies on the machines that served
it, so it is pinned in Postgres, which serving obeys at once, and MLflow's stages follow as soon as they can.
"""

import logging
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from infra.faults import failpoint
from registry.contracts import PRODUCTION, STAGE_ALIASES, ArtifactKind, ReleaseIdentity, ReleaseVersions
from registry.errors import (
    CorruptArtifact,
    NoCopy,
    NothingToRollBackTo,
    PinCannotEnd,
    PromotionConflict,
    RegistryError,
    RegistryUnavailable,
    UnknownVersion,
)
from registry.mlflow.observer import settle_pin
from registry.models.artifacts import verify_artifact
from registry.promotion.audit import ROLLED_BACK_FROM, Pin, Promotion, PromotionLog, Way
from registry.promotion.gates import require_passed
from registry.promotion.history import known_digests, require_unambiguous, standing_releases
from registry.promotion.moves import move, resolved
from registry.promotion.release_cache import ReleaseCache
from registry.release import check_coherence
from registry.store import ModelRegistry, check_tags

_log = logging.getLogger(__name__)
_Digests = Mapping[ArtifactKind, str]


def promote(
    registry: ModelRegistry,
    log: PromotionLog,
    versions: ReleaseVersions,
    *,
    actor: str,
    way: Way,
    feature_schema: str | None,
    reason: str = "",
    stage: str = PRODUCTION,
    force: bool = False,
    cache: ReleaseCache | None = None,
) -> ReleaseVersions:
    """Move a release that passed its gates to a stage and record it; doing it again changes nothing.

    `feature_schema` is that of the features which serving offers; None asks nothing of it. `force` overrules the
    gates, never the schema, and needs a `reason`; the audit tells both. Every byte is fetched and verified before
    anything moves; with a `cache` it is then already where serving looks. A promotion to Production ends a pin. Raises
    UnknownVersion, IncoherentRelease, GatesNotPassed, ForceWithoutReason or CorruptArtifact before any move,
    PromotionConflict if another promotion is under way, PromotionFailed after having moved back what was moved.
    """
    if stage not in STAGE_ALIASES:
        raise UnknownVersion(f"`{stage}` is not a stage to promote to: choose {' or '.join(STAGE_ALIASES)}.")
    check_tags({kind: registry.version(kind, versions[kind]) for kind in ArtifactKind}, feature_schema)
    gates = require_passed(registry, versions, force=force, reason=reason)
    verify_release(registry, versions, feature_schema, cache)
    failpoint("promotion.after_verify")
    move(registry, log, Promotion(versions, stage, actor, way, reason, gates), feature_schema)
    return versions


def rollback(
    registry: ModelRegistry | None,
    log: PromotionLog,
    *,
    actor: str,
    way: Way,
    feature_schema: str | None,
    reason: str = "",
    to: ReleaseVersions | None = None,
    mark: str | None = None,
    cache: ReleaseCache | None = None,
) -> ReleaseVersions:
    """Put an earlier release back into Production: `to`, or the one before the current according to the audit.

    It counts once it is pinned; a pin that is still open afterwards says that MLflow could not be told yet, which
    `settle_pin` does later. Without a registry, or with one that does not answer, the target must lie in `cache`.
    `mark` says which bytes of `to` are meant where its numbers came twice; UnknownVersion is raised where that is open.
    Raises NothingToRollBackTo where there is no earlier one, NoCopy where its bytes are out of reach, PromotionConflict
    where Production changed meanwhile, IncoherentRelease or CorruptArtifact.
    """
    before = log.history(PRODUCTION)
    pin = log.open_pin()
    registry, seen = _look(registry)
    standing = standing_releases(before)
    if pin is None and registry is not None:
        if seen is not None and (not standing or standing[-1] != seen.versions):
            standing.append(seen.versions)  # moved by hand and not recorded yet
        if seen is None and standing:
            standing.append(standing[-1])  # nothing usable stands there: the last recorded one is the one to restore
    target = to or (standing[-2] if len(standing) > 1 else None)
    if target is None:
        raise NothingToRollBackTo("The audit knows no earlier release: promote one with `duet promote`.")
    if to is not None and mark is None:
        require_unambiguous(log, to)
    left = standing[-1] if standing else None
    if target == left and mark is None and (registry is None or (seen is not None and seen.versions == target)):
        return target
    digests = _verified(registry, log, target, feature_schema, cache, mark=mark)
    failpoint("rollback.after_verify")
    with log.ordering():
        registry, now = _look(registry)
        moved = registry is not None and now != seen
        if moved or log.history(PRODUCTION)[-1:] != before[-1:] or log.open_pin() != pin:
            raise PromotionConflict("Production changed while this was prepared: look at `duet releases`, then retry.")
        gates: dict[str, JsonValue] = {ROLLED_BACK_FROM: left.release_id if left else "nothing"}
        log.record(Promotion(target, PRODUCTION, actor, way, reason, gates, _stages(registry, target), digests=digests))
        log.pin(Pin(target, digests, actor, way, reason))
        failpoint("rollback.before_commit")
    failpoint("rollback.after_pin")
    if registry is not None:
        try:
            settle_pin(registry, log, patiently=True)
        except RegistryError as error:
            follows = "do not follow" if isinstance(error, PinCannotEnd) else "follow later"
            _log.warning("The stages in MLflow %s: %s", follows, error)
    return target


def verify_release(
    registry: ModelRegistry,
    versions: ReleaseVersions,
    feature_schema: str | None,
    cache: ReleaseCache | None = None,
) -> _Digests:
    """Check the tags, then every byte and the manifests of a release, without moving anything; return its digests."""
    check_tags({kind: registry.version(kind, versions[kind]) for kind in ArtifactKind}, feature_schema)
    if cache is not None:
        fetched = cache.fetch(registry, versions)
        check_coherence(fetched.manifests, feature_schema)
        return fetched.digests
    with tempfile.TemporaryDirectory(prefix="duet-verify-") as folder:
        return verify_release(registry, versions, feature_schema, ReleaseCache(Path(folder)))


def _look(registry: ModelRegistry | None) -> tuple[ModelRegistry | None, ReleaseIdentity | None]:
    """Return the registry if it answers, and what stands in Production."""
    if registry is None:
        return None, None
    try:
        return registry, resolved(registry, PRODUCTION)
    except RegistryUnavailable:
        return None, None


def _verified(
    registry: ModelRegistry | None,
    log: PromotionLog,
    versions: ReleaseVersions,
    feature_schema: str | None,
    cache: ReleaseCache | None,
    *,
    mark: str | None,
) -> _Digests:
    """Verify the copy that lies here, else what the registry has; return the digests."""
    digests = known_digests(log, versions, mark)
    local = cache.copy_of(versions, digests) if cache is not None and digests is not None else None
    if local is not None:
        try:
            manifests = {kind: verify_artifact(local.directories[kind], local.digests[kind]) for kind in ArtifactKind}
        except CorruptArtifact:
            local = None  # the registry may have better bytes
        else:
            check_coherence(manifests, feature_schema)
            return local.digests
    if registry is None:
        raise NoCopy(
            f"{versions.release_id} has no verified copy on {socket.gethostname()}, and MLflow does not answer: "
            "run this on a machine that served it (`duet releases` lists them), or start MLflow."
        )
    found = verify_release(registry, versions, feature_schema, cache)
    if mark is not None and found != digests:
        raise NoCopy(
            f"{versions.release_id}@{mark} has no verified copy on {socket.gethostname()}, and MLflow holds other "
            "bytes under these numbers: run this on a machine that served it (`duet releases` lists them)."
        )
    return found


def _stages(registry: ModelRegistry | None, versions: ReleaseVersions) -> dict[ArtifactKind, str | None]:
    if registry is None:
        return dict.fromkeys(ArtifactKind)
    try:
        return {kind: registry.version(kind, versions[kind]).stage for kind in ArtifactKind}
    except RegistryError:
        return dict.fromkeys(ArtifactKind)
