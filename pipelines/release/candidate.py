"""Put together the three parts that are meant to serve together, and prove that they do before anybody promotes them.

The index decides: its embedding is the candidate's embedding. The ranker is the one of this run, else the one in
Production, else the newest. An incoherent set is refused here, long before a person could promote it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.faults import failpoint
from pipelines.artifacts import artifact_directory, production_or_newest
from pipelines.release.errors import NoCandidate
from registry.contracts import ArtifactKind, ReleaseVersions

if TYPE_CHECKING:
    from pipelines.resources import Platform
    from pipelines.state import Current
    from registry.gates import GateReport


@dataclass(frozen=True)
class Candidate:
    """Three artefacts on this disk and the pointers they came from."""

    directories: dict[ArtifactKind, Path]
    index: "Current"
    ranker: "Current"


def find_candidate(platform: "Platform", run_id: str) -> Candidate:
    """Choose the parts.

    Raises:
        MissingUpstream: there is no index or no ranker yet.
        NoCandidate: the index's embedding is neither on this disk nor in the registry.
    """
    index = platform.state.require("candidate_index")
    ranker = platform.state.find("ranker")
    if ranker is None or ranker.run_id != run_id:
        ranker = production_or_newest(platform, ArtifactKind.RANKER)
    embedding_digest = index.inputs["embeddings"]
    embedding = platform.state.directory("embeddings", embedding_digest)
    if not embedding.exists():
        held = [v for v in platform.registry.versions(ArtifactKind.EMBEDDING) if v.digest == embedding_digest]
        if not held:
            raise NoCandidate(
                f"the embedding {embedding_digest[:12]} of the index is neither on this disk nor in the registry; "
                "run the job `train_all`"
            )
        embedding = artifact_directory(platform, ArtifactKind.EMBEDDING, embedding_digest, held[0].version)
    directories = {
        ArtifactKind.EMBEDDING: embedding,
        ArtifactKind.INDEX: index.path,
        ArtifactKind.RANKER: ranker.path,
    }
    return Candidate(directories, index, ranker)


def register_candidate(platform: "Platform", candidate: Candidate) -> ReleaseVersions:
    """Verify and try the set, then tag its three versions with the candidate's id.

    Raises:
        IncoherentRelease: the parts do not belong together or do not answer as they did when they were made.
        CorruptArtifact: a file is not what its manifest says.
    """
    from feature_repo.layout import RANKING_FEATURES
    from feature_repo.schema import ranking_schema_digest
    from registry.release import load_release

    kinds = list(ArtifactKind)
    # The version of a known digest comes back; one the registry has lost is registered again.
    versions = ReleaseVersions.of(
        {kind: platform.models.log_version(kind, candidate.directories[kind]) for kind in kinds}
    )
    load_release(
        candidate.directories,
        versions,
        feature_schema_digest=ranking_schema_digest(),
        feature_names=RANKING_FEATURES,
    )
    failpoint("candidate.after_check")
    for kind in kinds:
        platform.models.log_version(kind, candidate.directories[kind], release_candidate=versions.release_id)
        failpoint(f"candidate.after_{kind}")
    return versions


def judge_candidate(platform: "Platform", versions: ReleaseVersions) -> "GateReport":
    """Write on a registered release what its gates say; `register_candidate` has asked the canary queries."""
    from pipelines.state import combined_digest
    from registry.gates import GateReport, GateResult, write_report

    why = "Embedding, index and ranker answer their canary queries as they did when they were made."
    canaries = GateResult(name="canaries", metric="canaries", value=1, direction="higher", passed=True, why=why)
    policy = combined_digest({"gates": ["canaries"]})
    judged_at = platform.clock.now()
    report = GateReport(release=versions.release_id, policy=policy, judged_at=judged_at, results=(canaries,))
    write_report(platform.registry, report)
    return report
