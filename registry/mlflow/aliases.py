"""The registry of an MLflow without stages: `champion` and `challenger` say alone what serves and what challenges it.

MLflow deprecated stages in 2.9. With `DUET_MLFLOW__PROMOTED_BY=aliases` nothing here asks for one: what the rest of
Duet calls Production is the version that `champion` points at, and Staging the one that `challenger` points at, unless
it is the champion. An alias points at one version, so no two ever stand in one stage, and nothing is ever archived.
"""

from dataclasses import replace
from typing import Final

from infra.settings import MlflowSettings
from registry.contracts import (
    ARCHIVED,
    MODEL_NAMES,
    NO_STAGE,
    PRODUCTION,
    STAGE_ALIASES,
    STAGING,
    ArtifactKind,
    ModelVersion,
)
from registry.errors import RegistryUnavailable
from registry.mlflow.rest import MlflowRest

_STAGES: Final = (*STAGE_ALIASES, ARCHIVED, NO_STAGE)


class MlflowAliases(MlflowRest):
    """A registry whose stages are aliases. MLflow notes no time for those, so `updated_at` of a version is None."""

    def versions(self, kind: ArtifactKind) -> list[ModelVersion]:
        """List all versions, newest first."""
        aliases = self.aliases(kind)
        return [_standing(version, aliases) for version in super().versions(kind)]

    def version(self, kind: ArtifactKind, version: int) -> ModelVersion:
        """Return one version; raise UnknownVersion."""
        return _standing(super().version(kind, version), self.aliases(kind))

    def in_stage(self, stage: str) -> dict[ArtifactKind, ModelVersion]:
        """Return the version in the stage of each model: at most six small requests, cheap enough to poll."""
        found: dict[ArtifactKind, ModelVersion] = {}
        for kind in ArtifactKind:
            version = self.by_alias(kind, STAGE_ALIASES[stage])
            if version is not None and stage == STAGING:
                champion = self.by_alias(kind, STAGE_ALIASES[PRODUCTION])
                version = None if champion is not None and champion.version == version.version else version
            if version is not None:
                found[kind] = replace(version, stage=stage, updated_at=None)
        return found

    def transition_stage(
        self,
        kind: ArtifactKind,
        version: int,
        stage: str,
        *,
        archive_existing: bool = True,  # noqa: ARG002 an alias leaves what it pointed at before
    ) -> ModelVersion:
        """Point the alias of a stage at a version and take the other one from it; of no stage, take both."""
        if stage not in _STAGES:
            raise RegistryUnavailable(f"`{stage}` is no stage: choose one of {', '.join(_STAGES)}.")
        moved = super().version(kind, version)
        wanted = STAGE_ALIASES.get(stage)
        if wanted is not None:
            self.set_alias(kind, wanted, version)
        for alias, target in self.aliases(kind).items():
            if alias in STAGE_ALIASES.values() and alias != wanted and target == version:
                self.delete_alias(kind, alias)
        return replace(moved, stage=stage if wanted else NO_STAGE, updated_at=None)

    def by_alias(self, kind: ArtifactKind, alias: str) -> ModelVersion | None:
        """Return the version that an alias points at, None without one; its stage is not told."""
        params = {"name": MODEL_NAMES[kind], "alias": alias}
        return self._found("registered-models/alias", params, kind)


def registry_at(
    url: str, settings: MlflowSettings, *, token: str | None = None, timeout_s: float | None = None
) -> MlflowRest:
    """Return the registry on the MLflow server at `url`, by stages or by aliases as the settings say."""
    reader = MlflowAliases if settings.promoted_by == "aliases" else MlflowRest
    return reader(url, token=token, timeout_s=settings.request_timeout_s if timeout_s is None else timeout_s)


def _standing(version: ModelVersion, aliases: dict[str, int]) -> ModelVersion:
    """Return a version in the stage of its alias; of both, it stands in Production."""
    stages = [stage for stage, alias in STAGE_ALIASES.items() if aliases.get(alias) == version.version]
    return replace(version, stage=stages[0] if stages else NO_STAGE, updated_at=None)
