"""Judge a registered release: load it, load Production's beside it, measure both, and write the report on its versions.

A release that cannot be loaded is written down as failed by its first gate, and refused. Where Production cannot be
loaded any more, every gate that compares with it fails and says why: a person may overrule that with `--force`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.release.measure import measure
from pipelines.release.policy import Policy, judge
from pipelines.results.artifacts import artifact_directory
from registry.contracts import PRODUCTION, ArtifactKind, ReleaseVersions
from registry.errors import IncoherentRelease, RegistryError, RegistryUnavailable
from registry.promotion.gates import GateReport, GateResult, write_report
from registry.release import Release, load_release

if TYPE_CHECKING:
    from pipelines.evaluation.scene import Positions
    from pipelines.resources import Platform
    from pipelines.results.store import StepResult


def judge_release(
    platform: "Platform",
    policy: Policy,
    versions: ReleaseVersions,
    interactions: "StepResult",
    tell: Callable[[str], None],
    *,
    directories: Mapping[ArtifactKind, Path] | None = None,
) -> tuple[Release, GateReport]:
    """Judge any coherent triple on the snapshot of `interactions`, write the report on it and return both.

    Raises:
        MissingUpstream: the files of the snapshot are gone.
        IncoherentRelease: the parts do not belong together or do not answer as they did; that is written down too.
        CorruptArtifact: a file is not what its manifest says; that is written down too.
    """
    try:
        candidate = loaded(platform, versions, directories)
    except RegistryError as unusable:
        write_report(platform.registry, _unusable(platform, policy, versions, unusable))
        raise
    snapshot = platform.snapshot(interactions)
    production, unloadable = production_release(platform, versions, tell)
    measured = measure(
        candidate,
        production,
        snapshot,
        recorded=_recorded(platform, snapshot.people.user_ids, policy.sampling.replayed_people),
        sampling=policy.sampling,
        settings=platform.settings,
        clock=platform.clock,
        tell=tell,
    )
    if unloadable is not None:
        measured = replace(measured, against=unloadable.name, unloadable=unloadable.why)
    report = judge(policy, measured, versions.release_id, platform.clock.now())
    write_report(platform.registry, report)
    tell(f"gates of {report.release}: {report.verdict}")
    return candidate, report


def loaded(
    platform: "Platform", versions: ReleaseVersions, directories: Mapping[ArtifactKind, Path] | None = None
) -> Release:
    """Load and try a release from these directories, or fetch it from the registry; raise RegistryError."""
    from feature_repo.layout import RANKING_FEATURES
    from feature_repo.schema import offered_schema

    if directories is None:
        directories = {kind: _fetched(platform, kind, versions[kind]) for kind in ArtifactKind}
    return load_release(directories, versions, feature_schema=offered_schema(), feature_names=RANKING_FEATURES)


class Unloadable(NamedTuple):
    """What stands in Production and cannot be loaded here, and a sentence that says why."""

    name: str
    why: str


def production_release(
    platform: "Platform", candidate: ReleaseVersions | None, tell: Callable[[str], None]
) -> tuple[Release | None, Unloadable | None]:
    """Load the release in Production, if there is another one than the candidate, or say why it cannot be loaded.

    Raises:
        RegistryUnavailable: MLflow does not answer, so nobody knows.
    """
    if not platform.registry.in_stage(PRODUCTION):
        tell("nothing to compare with: no model is in Production")
        return None, None
    name = "the set of models"
    try:
        versions = platform.registry.resolve_stage(PRODUCTION)
        name = versions.release_id
        if versions == candidate:
            tell(f"{name} stands in Production itself, so there is nothing to compare it with")
            return None, None
        return loaded(platform, versions), None
    except RegistryUnavailable:
        raise
    except RegistryError as unusable:
        why = f"{name} in Production cannot be loaded here: {unusable}"
        tell(why)
        return None, Unloadable(name, why)


def _fetched(platform: "Platform", kind: ArtifactKind, version: int) -> Path:
    digest = platform.registry.version(kind, version).digest
    if digest is None:
        raise IncoherentRelease(f"{kind} version {version} has no digest tag: register it with Duet.")
    return artifact_directory(platform, kind, digest, version)


def _recorded(platform: "Platform", user_ids: "Positions", most: int) -> "Positions":
    """Return the positions of the people who were shown somebody lately, the latest first."""
    with platform.connection() as connection:
        rows = connection.execute(
            "select user_id"
            "  from (select user_id, shown_at from duet.impressions order by shown_at desc limit %s) latest"
            " group by user_id order by max(shown_at) desc, user_id limit %s",
            (50 * most, most),
        ).fetchall()
    wanted = np.array([row[0] for row in rows], dtype=np.int64)
    at = np.minimum(np.searchsorted(user_ids, wanted), max(user_ids.size - 1, 0))
    return at[user_ids[at] == wanted] if user_ids.size else np.empty(0, dtype=np.int64)


def _unusable(platform: "Platform", policy: Policy, versions: ReleaseVersions, error: RegistryError) -> GateReport:
    gate = next((gate for gate in policy.gates if gate.metric == "canary_agreement"), policy.gates[0])
    result = GateResult(
        name=gate.name,
        metric=gate.metric,
        value=None,
        direction=gate.direction,
        threshold=gate.threshold,
        passed=False,
        why=f"The release cannot be loaded and tried: {error}",
    )
    return GateReport(
        release=versions.release_id, policy=policy.digest, judged_at=platform.clock.now(), results=(result,)
    )
