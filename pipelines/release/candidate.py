"""Put together the three parts that are meant to serve together, and prove that they do before anybody promotes them.

The index decides: its embedding is the candidate's embedding. The ranker is the one of this run, else the one in
Production, else the newest. An incoherent set is refused here, long before a person could promote it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.faults import failpoint
from pipelines.release.errors import NoCandidate
from pipelines.results.artifacts import artifact_directory, production_or_newest
from registry.contracts import ArtifactKind, ReleaseVersions

if TYPE_CHECKING:
    from pipelines.resources import Platform
    from pipelines.results.store import StepResult
    from registry.release import Release


@dataclass(frozen=True)
class Candidate:
    """Three artefacts on this disk and the pointers they came from."""

    directories: dict[ArtifactKind, Path]
    index: "StepResult"
    ranker: "StepResult"


def find_candidate(platform: "Platform", index: "StepResult", ranker: "StepResult | None", run_id: str) -> Candidate:
    """Choose the parts: the index, its embedding, and the ranker if it is of this run, else the one in Production.

    Raises:
        MissingUpstream: there is no ranker yet.
        NoCandidate: the index's embedding is neither among the results nor in the registry.
    """
    if ranker is None or ranker.run_id != run_id:
        ranker = production_or_newest(platform, ArtifactKind.RANKER, ranker)
    embedding_digest = index.inputs["embeddings"]
    if platform.results.has("embeddings", embedding_digest):
        embedding = platform.results.path("embeddings", embedding_digest)
    else:
        held = [v for v in platform.registry.versions(ArtifactKind.EMBEDDING) if v.digest == embedding_digest]
        if not held:
            raise NoCandidate(
                f"the embedding {embedding_digest[:12]} of the index is neither among the results nor in the registry; "
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
    """Register what the registry does not know yet, and return the three versions."""
    return ReleaseVersions.of(
        # The version of a known digest comes back; one the registry has lost is registered again.
        {kind: platform.models.log_version(kind, candidate.directories[kind]) for kind in ArtifactKind}
    )


def name_candidate(platform: "Platform", candidate: Candidate, release: "Release") -> None:
    """Tag the versions of a set that was tried and judged with the candidate's id: by it, it can be promoted."""
    failpoint("candidate.after_check")
    for kind in ArtifactKind:
        platform.models.log_version(kind, candidate.directories[kind], release_candidate=release.release_id)
        failpoint(f"candidate.after_{kind}")
