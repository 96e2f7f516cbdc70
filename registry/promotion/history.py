"""Questions to the audit: what stood where at an instant, what a rollback goes back to, which bytes a release had."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from registry.contracts import PRODUCTION, STAGING, ArtifactKind, ReleaseVersions, mark_of
from registry.errors import UnknownVersion
from registry.promotion.audit import Promotion, PromotionLog


def release_at(log: PromotionLog, at: datetime | None = None, stage: str = PRODUCTION) -> Promotion | None:
    """Return the promotion whose release stood in a stage at an instant (now: None), that instant included.

    A Production that was emptied by hand keeps its last release, as serving does; a challenger that has left Staging,
    or was promoted from there, is over.
    """
    entries = log.history(stage, until=at)
    if stage == PRODUCTION:
        entries = [entry for entry in entries if not entry.is_departure]
    last = entries[-1] if entries else None
    if last is None or last.is_departure or (stage == STAGING and _was_taken(log, last, at)):
        return None
    return last


def _was_taken(log: PromotionLog, staged: Promotion, at: datetime | None) -> bool:
    return any(
        STAGING in entry.from_stages.values()
        for entry in log.history(PRODUCTION, until=at)
        if entry.at is not None and staged.at is not None and entry.at > staged.at
    )


def standing_releases(history: Sequence[Promotion]) -> list[ReleaseVersions]:
    """Return the releases that a rollback can go back through, the current one last.

    A rollback takes away the release that it left, so rolling back twice goes two releases back instead of returning
    to the one that was bad.
    """
    stack: list[ReleaseVersions] = []
    for promotion in history:
        if promotion.is_departure:
            continue
        if promotion.rolled_back_from is not None and promotion.versions in stack:
            last = len(stack) - 1 - stack[::-1].index(promotion.versions)
            del stack[last + 1 :]
        elif not stack or stack[-1] != promotion.versions:
            stack.append(promotion.versions)
    return stack


def known_digests(
    log: PromotionLog, versions: ReleaseVersions, mark: str | None = None
) -> Mapping[ArtifactKind, str] | None:
    """Return the digests that a release had when it was last promoted, None if the audit does not know all three.

    The number of a version that was deleted in MLflow may come again with other bytes: `mark` says which are meant.
    Raises UnknownVersion where no release of these numbers has that mark.
    """
    known = [
        entry.digests
        for entry in reversed([*log.history(STAGING), *log.history(PRODUCTION)])
        if entry.versions == versions and set(entry.digests) == set(ArtifactKind)
    ]
    if mark is None:
        return known[0] if known else None
    for digests in known:
        if mark_of(digests).startswith(mark):
            return digests
    raise UnknownVersion(f"The audit knows no {versions.release_id}@{mark}: `duet releases` lists them.")


def standing_mark(log: PromotionLog, versions: ReleaseVersions, stage: str = PRODUCTION) -> str | None:
    """Return the mark of the bytes that stand in a stage under these numbers, None where the audit does not know."""
    standing = release_at(log, stage=stage)
    if standing is None or standing.versions != versions or set(standing.digests) != set(ArtifactKind):
        return None
    return mark_of(standing.digests)


def require_unambiguous(log: PromotionLog, versions: ReleaseVersions) -> None:
    """Raise UnknownVersion where a release id names releases of different bytes, and say how to name each."""
    marks = dict.fromkeys(
        mark_of(entry.digests)
        for entry in [*log.history(STAGING), *log.history(PRODUCTION)]
        if entry.versions == versions and set(entry.digests) == set(ArtifactKind)
    )
    if len(marks) > 1:
        names = ", ".join(f"{versions.release_id}@{mark}" for mark in marks)
        raise UnknownVersion(f"`{versions.release_id}` names {len(marks)} releases, oldest first: give one of {names}.")
