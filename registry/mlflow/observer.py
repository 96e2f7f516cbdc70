"""What people do in MLflow itself, brought into the audit; and what MLflow was not told of, brought into MLflow.

MLflow keeps no history of stages, so everybody who watches them calls this: the watchers of serving and a sensor. All
of it is idempotent under the lock of the audit, so a move is recorded once however many see it, at the instant that
MLflow remembers. MLflow does not say who moved a stage.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from pydantic import JsonValue

from registry.contracts import (
    ARCHIVED,
    PRODUCTION,
    STAGE_ALIASES,
    ArtifactKind,
    ModelVersion,
    ReleaseIdentity,
    ReleaseVersions,
)
from registry.errors import PinCannotEnd, PromotionConflict, UnknownVersion
from registry.promotion.audit import Pin, Promotion, PromotionLog
from registry.promotion.gates import gates_of_observed
from registry.promotion.history import release_at
from registry.promotion.moves import move_forward, resolved, sync_aliases
from registry.store import ModelRegistry

ACTOR: Final = "mlflow"
_MOVED, _EMPTIED = "stage moved in MLflow", "stage emptied in MLflow"
Honoured = Callable[[ReleaseIdentity], bool]


def settle_pin(registry: ModelRegistry, log: PromotionLog, *, patiently: bool = False) -> ReleaseVersions | None:
    """Move the stages of MLflow to the pinned release and close the pin; None if there was nothing to do.

    Raises PromotionConflict while somebody else moves, RegistryUnavailable, and PinCannotEnd if the versions in MLflow
    are not the pinned bytes any more. The pin stays open then, and serving goes on obeying it.
    """
    if log.open_pin() is None:
        return None
    with log.observing(patiently=patiently):
        pin = log.open_pin()
        if pin is None:
            return None
        if (problem := pin_problem(registry, pin)) is not None:
            raise PinCannotEnd(problem)
        move_forward(registry, pin.versions, PRODUCTION)
        log.close_pin("the stages of MLflow follow", pin)
    return pin.versions


def pin_problem(registry: ModelRegistry, pin: Pin) -> str | None:
    """Say why the stages of MLflow can never follow a pin, None if they can; raises RegistryUnavailable."""
    for kind in ArtifactKind:
        version = pin.versions[kind]
        try:
            found = registry.version(kind, version).digest
        except UnknownVersion:
            lost = f"{kind} version {version} was deleted in MLflow"
        else:
            if found == pin.digests[kind]:
                continue
            lost = (
                f"{kind} version {version} in MLflow has digest {(found or 'unknown')[:12]}, the pinned one had "
                f"{pin.digests[kind][:12]}"
            )
        return (
            f"The pin on {pin.versions.release_id} cannot end: {lost}. It serves from local copies; promote another "
            "release with `duet promote`."
        )
    return None


class Observed(list[Promotion]):
    """What was recorded, and why the open pin can never end, if so."""

    pin_problem: str | None = None


def observe(
    registry: ModelRegistry,
    log: PromotionLog,
    stages: tuple[str, ...] = tuple(STAGE_ALIASES),
    honoured: Honoured = lambda _: True,
) -> Observed:
    """Settle an open pin, record what was moved by hand, bring the aliases in step, and return what is new.

    A release in Production is recorded once it is `honoured`: verified, or serving. An incoherent stage is no release:
    what served goes on, so nothing is recorded until it is coherent or empty. While a promotion is under way nothing
    is: it records itself. A pin that cannot end keeps nothing from being recorded.
    """
    observed = Observed()
    try:
        try:
            settle_pin(registry, log)
        except PinCannotEnd as error:
            observed.pin_problem = str(error)
        observed += [entry for stage in stages if (entry := _observe(registry, log, stage, honoured)) is not None]
    except PromotionConflict:
        pass
    return observed


def _observe(registry: ModelRegistry, log: PromotionLog, stage: str, honoured: Honoured) -> Promotion | None:
    news = _news(registry, log, stage)
    if news is None or (stage == PRODUCTION and not news.is_departure and not honoured(news.identity)):
        return None
    with log.observing():
        if _news(registry, log, stage) != news:
            return None  # it changed meanwhile, or somebody else was faster: the next look tells
        log.record(news)
        sync_aliases(registry)
    return news


def _news(registry: ModelRegistry, log: PromotionLog, stage: str) -> Promotion | None:
    """Return what must be added to the audit for it to say what a stage holds."""
    standing = resolved(registry, stage)
    if stage == PRODUCTION and not _moved_since(registry, standing, log.open_pin()):
        return None
    last = _last(log, stage)
    if standing is not None:
        if last is not None and not last.is_departure and last.identity.agrees_with(standing):
            return None
        gates = gates_of_observed(registry, standing.versions)
        return _entry(registry, standing, stage=stage, reason=_MOVED, gates=gates)
    if last is None or last.is_departure or registry.in_stage(stage):
        return None
    return _entry(
        registry,
        last.identity,
        stage=ARCHIVED,
        reason=_EMPTIED,
        gates={},
        from_stages=dict.fromkeys(ArtifactKind, stage),
    )


def _moved_since(registry: ModelRegistry, standing: ReleaseIdentity | None, pin: Pin | None) -> bool:
    """Say whether somebody moved a stage after a pin was opened; else it holds what the rollback has left."""
    if pin is None:
        return True
    if standing is None or pin.at is None:
        return False
    moved = [registry.version(kind, standing.versions[kind]).updated_at for kind in ArtifactKind]
    return any(at is not None and at > pin.at for at in moved)


def _last(log: PromotionLog, stage: str) -> Promotion | None:
    if stage == PRODUCTION:
        history = log.history(stage, limit=1)
        return history[-1] if history else None
    return release_at(log, stage=stage)


def _entry(
    registry: ModelRegistry,
    release: ReleaseIdentity,
    *,
    stage: str,
    reason: str,
    gates: Mapping[str, JsonValue],
    from_stages: Mapping[ArtifactKind, str | None] | None = None,
) -> Promotion:
    parts: list[ModelVersion] = []
    for kind in ArtifactKind:
        with contextlib.suppress(UnknownVersion):  # it left its stage by being deleted
            parts.append(registry.version(kind, release.versions[kind]))
    return Promotion(
        release.versions,
        stage,
        ACTOR,
        "ui",
        reason,
        gates,
        from_stages or {},
        # The instant at which the last of the three was moved: from then on they were a release.
        at=max((part.updated_at for part in parts if part.updated_at is not None), default=None),
        digests=release.digests,
    )
