"""What Duet needs of a model registry, and how a coherent release is read from its stages.

Two implementations obey the same contract tests: MLflow over REST and an in-memory one in the tests.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from registry.contracts import (
    MODEL_NAMES,
    PRODUCTION,
    STAGE_ALIASES,
    TAG_DIGEST,
    TAG_EMBEDDING_DIGEST,
    TAG_RELEASE_CANDIDATE,
    ArtifactKind,
    Manifest,
    ModelVersion,
    ReleaseIdentity,
    ReleaseVersions,
    schema_trained_on,
    unmet_schema,
)
from registry.errors import IncoherentRelease, UnknownVersion


class ModelRegistry(ABC):
    """Versions of the three models, their stages, aliases and bytes. Versions are listed newest first."""

    @abstractmethod
    def versions(self, kind: ArtifactKind) -> list[ModelVersion]:
        """List all versions; an empty list if the model was never registered."""

    @abstractmethod
    def version(self, kind: ArtifactKind, version: int) -> ModelVersion:
        """Return one version; raise UnknownVersion."""

    @abstractmethod
    def transition_stage(
        self, kind: ArtifactKind, version: int, stage: str, *, archive_existing: bool = True
    ) -> ModelVersion:
        """Move a version to a stage, and what stood there to `Archived`, in one step; raise UnknownVersion."""

    @abstractmethod
    def set_alias(self, kind: ArtifactKind, alias: str, version: int) -> None:
        """Point an alias at a version, away from any other."""

    @abstractmethod
    def delete_alias(self, kind: ArtifactKind, alias: str) -> None:
        """Remove an alias, if it is there."""

    @abstractmethod
    def aliases(self, kind: ArtifactKind) -> dict[str, int]:
        """Return the version that each alias points at."""

    @abstractmethod
    def set_tag(self, kind: ArtifactKind, version: int, key: str, value: str) -> None:
        """Set a tag of a version; raise UnknownVersion."""

    @abstractmethod
    def describe(self, kind: ArtifactKind, version: int, description: str) -> None:
        """Replace the description (Markdown) of a version; raise UnknownVersion."""

    @abstractmethod
    def download(self, kind: ArtifactKind, version: int, directory: Path) -> Manifest:
        """Fetch a version's artefact, verified against its tag, so that `directory` holds all of it or is not there."""

    def versions_in_stage(self, kind: ArtifactKind, stage: str) -> list[ModelVersion]:
        """List the versions that stand in a stage."""
        return [version for version in self.versions(kind) if version.stage == stage]

    def in_stage(self, stage: str) -> dict[ArtifactKind, ModelVersion]:
        """Return the newest version in the stage of each model that has one."""
        found = {kind: self.versions_in_stage(kind, stage) for kind in ArtifactKind}
        return {kind: versions[0] for kind, versions in found.items() if versions}

    def resolve_stage(self, stage: str = PRODUCTION, feature_schema: str | None = None) -> ReleaseVersions:
        """Return the numbers of the release in a stage; raise IncoherentRelease with the reason."""
        return self.identify_stage(stage, feature_schema).versions

    def identify_stage(self, stage: str = PRODUCTION, feature_schema: str | None = None) -> ReleaseIdentity:
        """Return the release that the newest versions in a stage make up; raise IncoherentRelease with the reason.

        A version stands in one stage only, so a challenger that shares a part with Production finds it there.
        """
        standing = self.in_stage(stage)
        if not standing:
            command = "duet promote" if stage == PRODUCTION else f"duet promote --{stage.lower()}"
            raise IncoherentRelease(f"No model is in stage {stage}: train, then run `{command}`.")
        if stage != PRODUCTION and len(standing) < len(ArtifactKind):
            standing = {**self.in_stage(PRODUCTION), **standing}
        if missing := [kind.value for kind in ArtifactKind if kind not in standing]:
            raise IncoherentRelease(
                f"Stage {stage} has no {' and no '.join(missing)}: move the matching version there, "
                "or run `duet promote`."
            )
        check_tags(standing, feature_schema)
        return identity_of(standing)

    def crowding(self) -> list[str]:
        """Say of each stage that holds several versions of a model which one counts and what to do."""
        found: list[str] = []
        for kind in ArtifactKind:
            versions = self.versions(kind)
            for stage in STAGE_ALIASES:
                numbers = [str(version.version) for version in versions if version.stage == stage]
                if len(numbers) > 1:
                    found.append(
                        f"{MODEL_NAMES[kind]} has versions {', '.join(numbers[:-1])} and {numbers[-1]} in {stage}, "
                        f"and the newest, {numbers[0]}, counts: move what is not meant there to Archived in MLflow."
                    )
        return found

    def release_candidate(self, name: str = "latest") -> ReleaseVersions:
        """Return the versions that share the tag `release_candidate`; `latest` is the newest complete coherent one."""
        tagged: dict[str, dict[ArtifactKind, ModelVersion]] = {}
        for kind in ArtifactKind:
            for version in self.versions(kind):
                for candidate in version.tags.get(TAG_RELEASE_CANDIDATE, "").split(","):
                    if candidate:
                        tagged.setdefault(candidate, {}).setdefault(kind, version)
        complete = {
            candidate: versions
            for candidate, versions in tagged.items()
            if len(versions) == len(ArtifactKind) and incoherence(versions) is None
        }
        if name != "latest" and name not in complete:
            raise UnknownVersion(f"`{name}` is not a complete release candidate: `duet releases` lists them.")
        if not complete:
            raise UnknownVersion("There is no complete release candidate: run `duet train` first.")
        chosen = complete[name] if name != "latest" else max(complete.values(), key=_newness)
        return ReleaseVersions.of({kind: version.version for kind, version in chosen.items()})


def identity_of(versions: Mapping[ArtifactKind, ModelVersion]) -> ReleaseIdentity:
    """Return which release three versions make up."""
    return ReleaseIdentity(
        ReleaseVersions.of({kind: version.version for kind, version in versions.items()}),
        {kind: version.digest for kind, version in versions.items() if version.digest},
    )


def _newness(versions: Mapping[ArtifactKind, ModelVersion]) -> tuple[int, ...]:
    # The ranker is trained last, so its number orders candidates; the others break ties.
    return tuple(versions[kind].version for kind in (ArtifactKind.RANKER, ArtifactKind.INDEX, ArtifactKind.EMBEDDING))


def incoherence(versions: Mapping[ArtifactKind, ModelVersion], feature_schema: str | None = None) -> str | None:
    """Say from the tags alone why these versions must not serve together, or None."""
    for version in versions.values():
        if not version.digest:
            return f"{version.kind} version {version.version} has no digest tag, so Duet did not register it"
    embedding, index, ranker = (versions[kind] for kind in ArtifactKind)
    built_from = index.tags.get(TAG_EMBEDDING_DIGEST)
    if built_from != embedding.tags[TAG_DIGEST]:
        return (
            f"index {index.version} was built from embedding {(built_from or 'unknown')[:12]}, not from version "
            f"{embedding.version} ({embedding.tags[TAG_DIGEST][:12]})"
        )
    trained_on = schema_trained_on(ranker.tags)
    unmet = unmet_schema(trained_on, trained_on or "" if feature_schema is None else feature_schema)
    return None if unmet is None else f"ranker {ranker.version} {unmet}"


def check_tags(versions: Mapping[ArtifactKind, ModelVersion], feature_schema: str | None = None) -> None:
    """Raise IncoherentRelease with the reason if the tags say that these versions do not belong together."""
    reason = incoherence(versions, feature_schema)
    if reason is not None:
        raise IncoherentRelease(f"The versions do not make a release: {reason}.")
