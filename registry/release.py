"""A release: the embedding, index and ranker that serve together, verified before any of them is used.

Nothing is loaded before every digest holds; nothing is returned before the parts agree with each other and answer
their canary queries as they did when they were built. A release never changes after that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from registry.contracts import (
    TAG_EMBEDDING_DIGEST,
    ArtifactKind,
    Manifest,
    ReleaseIdentity,
    ReleaseVersions,
    mark_of,
    schema_trained_on,
    unmet_schema,
)
from registry.errors import IncoherentRelease
from registry.models.agreement import foreign_factors
from registry.models.artifacts import verify_artifact
from registry.models.embedding import Embedding
from registry.models.item_index import ItemIndex
from registry.models.neighbours import Neighbours
from registry.models.ranker import Ranker
from registry.scoring.prices import Prices

DEFAULT_LAST_LIKES: Final = 20


@dataclass(frozen=True)
class Release:
    """The matched set that serves, with the manifest of each part."""

    versions: ReleaseVersions
    embedding: Embedding
    index: ItemIndex
    ranker: Ranker
    manifests: Mapping[ArtifactKind, Manifest]
    neighbours: Neighbours | None = None
    prices: Prices | None = None

    @property
    def release_id(self) -> str:
        """Return the short name, such as `e3-i5-r2`."""
        return self.versions.release_id

    @cached_property
    def identity(self) -> ReleaseIdentity:
        """Return which release this is, by its bytes."""
        return ReleaseIdentity(self.versions, {kind: manifest.digest for kind, manifest in self.manifests.items()})

    @cached_property
    def mark(self) -> str:
        """Return what tells this release from others of the same numbers, as `mark_of` does."""
        return mark_of(self.identity.digests)

    @property
    def addresses(self) -> list[int]:
        """Return where the large arrays lie in memory, mapped or not, for as long as this release is kept."""
        return [*self.embedding.addresses, *self.index.addresses]

    @cached_property
    def last_likes(self) -> int:
        """Return with how many of a person's latest likes the ranker was taught to compare somebody."""
        return int(str(self.manifests[ArtifactKind.RANKER].parameters.get("last_likes", DEFAULT_LAST_LIKES)))


def load_release(
    directories: Mapping[ArtifactKind, Path],
    versions: ReleaseVersions,
    *,
    feature_schema: str,
    feature_names: Sequence[str],
    expected_digests: Mapping[ArtifactKind, str] | None = None,
    threads: int = 1,
    manifests: Mapping[ArtifactKind, Manifest] | None = None,
) -> Release:
    """Verify, check, load and try a release.

    `feature_schema` is what the caller offers by name and version, of which the ranker may need less, and
    `feature_names` the column order in which it will offer it. `manifests` are given when another
    process has just verified every byte against them; then the files are not read once more. Raises CorruptArtifact,
    IncoherentRelease or FeatureSchemaMismatch.
    """
    digests = expected_digests or {}
    if manifests is None:
        manifests = {kind: verify_artifact(directories[kind], digests.get(kind)) for kind in ArtifactKind}
    for kind, manifest in manifests.items():
        manifest.expect(kind)
    check_coherence(manifests, feature_schema)
    release = Release(
        versions=versions,
        embedding=Embedding.load(directories[ArtifactKind.EMBEDDING], verified=manifests[ArtifactKind.EMBEDDING]),
        index=ItemIndex.load(directories[ArtifactKind.INDEX], verified=manifests[ArtifactKind.INDEX], threads=threads),
        ranker=Ranker.load(
            directories[ArtifactKind.RANKER],
            feature_names,
            verified=manifests[ArtifactKind.RANKER],
            threads=threads,
        ),
        manifests=manifests,
        neighbours=Neighbours.load(directories[ArtifactKind.INDEX], manifests[ArtifactKind.INDEX]),
        prices=Prices.load(directories[ArtifactKind.INDEX], manifests[ArtifactKind.INDEX]),
    )
    self_check(release)
    return release


def check_coherence(manifests: Mapping[ArtifactKind, Manifest], feature_schema: str | None = None) -> None:
    """Raise IncoherentRelease unless the index was built from exactly this embedding and the ranker fits the schema."""
    embedding, index, ranker = (manifests[kind] for kind in ArtifactKind)
    built_from = index.lineage.get(TAG_EMBEDDING_DIGEST)
    if built_from != embedding.digest:
        raise IncoherentRelease(
            f"The index was built from embedding {_short(built_from)}, not from {_short(embedding.digest)}: "
            "promote the index that belongs to the embedding."
        )
    if feature_schema is not None:
        unmet = unmet_schema(schema_trained_on(ranker.lineage), feature_schema)
        if unmet is not None:
            raise IncoherentRelease(f"The ranker {unmet}.")


def self_check(release: Release) -> None:
    """Raise IncoherentRelease unless every part answers its canary queries and the parts agree on what they score."""
    embedding, index = release.embedding, release.index
    if index.width != 2 * embedding.dimensions:
        raise IncoherentRelease(
            f"The index holds vectors of width {index.width}, the embedding makes {2 * embedding.dimensions}."
        )
    if not len(index):
        raise IncoherentRelease("The index holds nobody: build it again once people are imported.")
    problems = (
        ("embedding", embedding.check_factors()),
        ("index", index.check_canary()),
        ("ranker", release.ranker.check_canary()),
    )
    for name, problem in problems:
        if problem is not None:
            raise IncoherentRelease(f"The {name} does not work here: {problem}.")
    foreign = foreign_factors(embedding, index)
    if foreign is not None:
        raise IncoherentRelease(f"The index was built from other factors than its embedding's: {foreign}.")
    release.embedding.warm()


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "nothing on record"
