"""What an artefact, a version and a release are: names, manifests and digests, without any I/O.

A manifest says which bytes make up an artefact, how it was made and from what. Its digest leaves out everything
measured with a clock, so equal inputs, configuration and code give equal digests.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, field_validator

from feature_repo.schema import not_offered
from registry.errors import UnknownVersion, UnsupportedArtifact

MANIFEST_NAME: Final = "manifest.json"
MANIFEST_FORMAT: Final = 1
MAX_FILES: Final = 64
MAX_FILE_BYTES: Final = 64 * 2**30

PRODUCTION: Final = "Production"
STAGING: Final = "Staging"
ARCHIVED: Final = "Archived"
NO_STAGE: Final = "None"
STAGE_ALIASES: Final = {PRODUCTION: "champion", STAGING: "challenger"}

TAG_DIGEST: Final = "digest"
TAG_EMBEDDING_DIGEST: Final = "embedding_digest"
TAG_FEATURE_SCHEMA: Final = "feature_schema"
_FORMER_TAG_FEATURE_SCHEMA: Final = "feature_schema_digest"
TAG_DATASET_DIGEST: Final = "dataset_digest"
TAG_RELEASE_CANDIDATE: Final = "release_candidate"
TAG_MANIFEST: Final = "manifest"

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(\.[a-z0-9]+)?")
_RELEASE_ID = re.compile(r"e([1-9][0-9]{0,8})-i([1-9][0-9]{0,8})-r([1-9][0-9]{0,8})")


class ArtifactKind(StrEnum):
    """The three parts of a release."""

    EMBEDDING = "embedding"
    INDEX = "index"
    RANKER = "ranker"


MODEL_NAMES: Final[dict[ArtifactKind, str]] = {kind: f"duet-{kind.value}" for kind in ArtifactKind}
MODEL_TRAINING: Final = "workflowType=machine_learning"
"""What a link into MLflow's pages carries: without it they open on traces of language models, which are none here."""


class FileEntry(BaseModel):
    """One file of an artefact: the sha256 of its bytes (hex) and its size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class Manifest(BaseModel):
    """What an artefact consists of, how it was made, how good it is and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=1)] = MANIFEST_FORMAT
    kind: ArtifactKind
    files: Annotated[dict[str, FileEntry], Field(min_length=1, max_length=MAX_FILES)]
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    lineage: dict[str, str] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _names_are_plain(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
                raise ValueError(f"`{name}` is not a plain lower-case file name")
        return files

    @property
    def digest(self) -> str:
        """Return the sha256 (hex) over canonical JSON of everything but the metrics, which are measured with clocks."""
        what_matters = self.model_dump(mode="json", exclude={"metrics"})
        return hashlib.sha256(canonical_json(what_matters)).hexdigest()

    def to_bytes(self) -> bytes:
        """Serialise as indented JSON with sorted keys."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    def expect(self, kind: ArtifactKind) -> None:
        """Refuse any other kind or format with UnsupportedArtifact."""
        if self.format != MANIFEST_FORMAT:
            raise UnsupportedArtifact(
                f"The artefact has manifest format {self.format}, this version of Duet reads {MANIFEST_FORMAT}: "
                "train it again or upgrade."
            )
        if self.kind is not kind:
            raise UnsupportedArtifact(f"The artefact is of kind `{self.kind}` where `{kind}` is needed.")


def canonical_json(value: JsonValue) -> bytes:
    """Serialise with sorted keys and no spaces: the same value always gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


@dataclass(frozen=True, order=True)
class ReleaseVersions:
    """The version numbers of the three registered models that serve together."""

    embedding: int
    index: int
    ranker: int

    @property
    def release_id(self) -> str:
        """Return the short name that answers, metrics and the audit carry, such as `e3-i5-r2`."""
        return f"e{self.embedding}-i{self.index}-r{self.ranker}"

    @classmethod
    def parse(cls, release_id: str) -> Self:
        """Read a release id back; raise UnknownVersion for anything else."""
        match = _RELEASE_ID.fullmatch(release_id)
        if match is None:
            raise UnknownVersion(f"`{release_id}` is not a release id: write it like `e3-i5-r2`.")
        return cls(*(int(part) for part in match.groups()))

    def __getitem__(self, kind: ArtifactKind) -> int:
        return {
            ArtifactKind.EMBEDDING: self.embedding,
            ArtifactKind.INDEX: self.index,
            ArtifactKind.RANKER: self.ranker,
        }[kind]

    @classmethod
    def of(cls, versions: dict[ArtifactKind, int]) -> Self:
        """Build from a version per kind."""
        return cls(versions[ArtifactKind.EMBEDDING], versions[ArtifactKind.INDEX], versions[ArtifactKind.RANKER])


def schema_trained_on(told: Mapping[str, str]) -> str | None:
    """Return the feature schema that the tags or the lineage of a ranker name, under the present or the former name."""
    return told.get(TAG_FEATURE_SCHEMA) or told.get(_FORMER_TAG_FEATURE_SCHEMA)


def unmet_schema(trained_on: str | None, offered: str) -> str | None:
    """Say which features a ranker was trained on that are not offered, or None where all of them are."""
    if not trained_on:
        return "does not say which feature schema it was trained on"
    missing = not_offered(trained_on, offered)
    if not missing:
        return None
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"was trained on `{missing[0][:80]}`{more} of another feature schema than is offered here: train it again"


@dataclass(frozen=True)
class ReleaseIdentity:
    """Which release this is: its version numbers and its bytes, because the number of a deleted version comes again."""

    versions: ReleaseVersions
    digests: Mapping[ArtifactKind, str]

    def agrees_with(self, other: "ReleaseIdentity") -> bool:
        """Say whether these are the same numbers and, where both know all digests, the same bytes."""
        known = set(self.digests) == set(other.digests) == set(ArtifactKind)
        return self.versions == other.versions and (not known or self.digests == other.digests)


def mark_of(digests: Mapping[ArtifactKind, str]) -> str:
    """Return twelve hexadecimal digits that tell releases of the same numbers apart by their bytes."""
    return hashlib.sha256("".join(digests[kind] for kind in ArtifactKind).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ModelVersion:
    """One registered version as the registry tells it."""

    kind: ArtifactKind
    version: int
    stage: str = NO_STAGE
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    description: str = ""

    @property
    def digest(self) -> str | None:
        """Return the artefact's digest, if its tag is there."""
        return self.tags.get(TAG_DIGEST)
