"""What can go wrong with artefacts, releases and promotions.

Each message is one sentence: what, with which value, what to do.

DuetError
└── RegistryError
    ├── ArtifactError
    │   ├── CorruptArtifact          a file is missing or is not what the manifest promises
    │   ├── UnsupportedArtifact      the manifest is of another format or kind than the reader's
    │   └── ArtifactConflict         another artefact already lies at this path
    ├── InvalidVectors               factors that are not finite, not aligned or of the wrong shape
    ├── InvalidQuery                 a search that the index must not answer
    ├── FeatureSchemaMismatch        the ranker needs features that are not offered
    ├── InvalidFeatures              a feature matrix that the ranker must not score
    ├── IncoherentRelease            versions that do not belong together, or do not work together
    ├── TrialFailed                  a release did not survive being loaded in a process of its own
    ├── RegistryUnavailable          MLflow does not answer, or not in its own language
    ├── UnknownVersion               no such version, stage or release
    ├── RegistrationFailed           a version could not be logged; nothing was registered
    ├── ExperimentActive             another experiment is active, and there can be only one
    ├── NoSuchExperiment             no experiment has this name
    └── PromotionError
        ├── PromotionConflict        another promotion or rollback is under way
        ├── PromotionFailed          a move failed midway; what was moved has been moved back
        ├── AuditUnavailable         the record of promotions cannot be read or written
        ├── GatesNotPassed           the release was not judged, or a gate failed
        ├── ForceWithoutReason       gates may be overruled only with a reason
        ├── PinCannotEnd             MLflow has lost what a rollback pinned, so its stages can never follow
        ├── NothingToRollBackTo      the audit knows no earlier release
        └── NoCopy                   an earlier release is known, but its bytes are out of reach
"""

from infra.errors import DuetError


class RegistryError(DuetError):
    """Anything that goes wrong between a trained artefact and a served release."""


class ArtifactError(RegistryError):
    """An artefact directory that cannot be used."""


class CorruptArtifact(ArtifactError):
    """A file is missing or is not what the manifest promises."""


class UnsupportedArtifact(ArtifactError):
    """The manifest is of another format or kind than the reader's."""


class ArtifactConflict(ArtifactError):
    """Another artefact already lies at this path."""


class InvalidVectors(RegistryError):
    """Factors that are not finite, not aligned or of the wrong shape."""


class InvalidQuery(RegistryError):
    """A search that the index must not answer."""


class FeatureSchemaMismatch(RegistryError):
    """The ranker needs features that are not offered."""


class InvalidFeatures(RegistryError):
    """A feature matrix that the ranker must not score."""


class IncoherentRelease(RegistryError):
    """Versions that do not belong together, or do not work together."""


class TrialFailed(RegistryError):
    """A release did not survive being loaded in a process of its own."""


class RegistryUnavailable(RegistryError):
    """MLflow does not answer, or not in its own language."""


class UnknownVersion(RegistryError):
    """No such version, stage or release."""


class RegistrationFailed(RegistryError):
    """A version could not be logged; nothing was registered."""


class ExperimentActive(RegistryError):
    """Another experiment is active, and there can be only one."""


class NoSuchExperiment(RegistryError):
    """No experiment has this name."""


class PromotionError(RegistryError):
    """A promotion or rollback that did not happen."""


class PromotionConflict(PromotionError):
    """Another promotion or rollback is under way."""


class PromotionFailed(PromotionError):
    """A move failed midway; what was moved has been moved back."""


class AuditUnavailable(PromotionError):
    """The record of promotions cannot be read or written."""


class GatesNotPassed(PromotionError):
    """The release was not judged, or a gate failed."""


class ForceWithoutReason(PromotionError):
    """Gates may be overruled only with a reason."""


class PinCannotEnd(PromotionError):
    """MLflow has lost what a rollback pinned, so its stages can never follow."""


class NothingToRollBackTo(PromotionError):
    """The audit knows no earlier release."""


class NoCopy(PromotionError):
    """An earlier release is known, but its bytes are out of reach."""
