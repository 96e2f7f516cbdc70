"""`duet releases`: what stands where, who serves what, who moved what when, and what stood there at an instant.

Of that, `duet status` is told where a stage holds more than it should.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from infra.cli.console import out, print_note, print_success, table
from infra.cli.context import current_settings
from infra.clock import in_utc
from infra.settings import Settings
from registry.promotion.opened import HURRIED_S, Reached, reached

if TYPE_CHECKING:
    import psycopg

    from registry.contracts import ModelVersion, ReleaseVersions
    from registry.mlflow.rest import MlflowRest
    from registry.promotion.audit import Promotion

_SHOWN_METRICS: Final = 3


def releases(
    ctx: typer.Context,
    at: Annotated[datetime | None, typer.Option(help="Show only the release active at this instant (UTC).")] = None,
    stage: Annotated[str, typer.Option(help="Stage that --at asks about: Production or Staging.")] = "Production",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many promotions to show.")] = 20,
) -> None:
    """Show what is in Production and Staging, what waits to be promoted, who serves what, and who moved what when."""
    from registry.contracts import STAGE_ALIASES

    wanted = {name.lower(): name for name in STAGE_ALIASES}.get(stage.lower())
    if wanted is None:
        raise typer.BadParameter(f"`{stage}` is not a stage: choose {' or '.join(STAGE_ALIASES)}")
    with reached(current_settings(ctx)) as servers:
        if at is not None:
            _show_instant(servers, in_utc(at), wanted)
        else:
            _show_all(servers, limit)


def crowding(settings: Settings) -> list[str]:
    """Say of the stages in MLflow that hold several versions which one counts; nothing while MLflow does not answer."""
    from infra.endpoints import running_mlflow
    from infra.web.token import mlflow_token
    from registry.errors import RegistryUnavailable
    from registry.mlflow.aliases import registry_at

    url = running_mlflow(settings)
    if url is None:
        return []
    hurried_s = min(HURRIED_S, settings.mlflow.request_timeout_s)
    with registry_at(url, settings.mlflow, token=mlflow_token(settings), timeout_s=hurried_s) as rest:
        try:
            return rest.crowding()
        except RegistryUnavailable:
            return []


def _show_instant(servers: Reached, instant: datetime, stage: str) -> None:
    from registry.promotion.history import release_at

    found = release_at(servers.log, instant, stage)
    if found is None:
        print_success(f"no release was in {stage} at {_when(instant)}")
        return
    out().print(_history_table(f"in {stage} at {_when(instant)}", [found]))
    newest = servers.log.history(stage, 1, instant)[-1]
    if newest.is_departure:
        print_note(f"the stage was emptied at {_when(newest.at)}; serving keeps the last release")


def _show_all(servers: Reached, limit: int) -> None:
    from registry.contracts import PRODUCTION, STAGING
    from registry.errors import RegistryUnavailable

    if servers.rest is None:
        print_note("MLflow does not answer, so what stands in its stages is not known")
    else:
        try:
            out().print(_stages_table(servers.rest))
            for sentence in servers.rest.crowding():
                print_note(sentence)
        except RegistryUnavailable as error:
            print_note(f"what stands in the stages is not known: {error}")
    pin = servers.log.open_pin()
    if pin is not None:
        print_note(
            f"{pin.versions.release_id} is pinned since {_when(pin.at)} by {pin.actor} ({pin.reason or 'no reason'})"
        )
        print_note(why_pinned(servers) or "the stages in MLflow have just followed")
    out().print(_workers_table(servers.connection))
    history = [*servers.log.history(PRODUCTION, limit), *servers.log.history(STAGING, limit)]
    history.sort(key=lambda promotion: promotion.at or datetime.min.replace(tzinfo=UTC), reverse=True)
    out().print(_history_table("promotions", history[:limit]))


def why_pinned(servers: Reached) -> str | None:
    """Say why the stages in MLflow do not follow a rollback yet, or never will; None without an open pin."""
    from registry.errors import RegistryUnavailable
    from registry.mlflow.observer import pin_problem

    pin = servers.log.open_pin()
    if pin is None:
        return None
    try:
        problem = None if servers.rest is None else pin_problem(servers.rest, pin)
    except RegistryUnavailable:
        problem = None
    return problem or (
        f"MLflow was not told yet, so {pin.versions.release_id} is pinned: serving obeys, and the stages in MLflow "
        "follow by themselves once it answers"
    )


def _workers_table(connection: "psycopg.Connection[Any]") -> object:
    from registry.promotion.workers import live_workers

    rows = [
        (
            worker.name,
            worker.release or "-",
            worker.challenger or "-",
            " ".join(worker.copies),
            " ".join(filter(None, (worker.refused, worker.challenger_refused))),
        )
        for worker in live_workers(connection)
    ]
    return table("serving", ("worker", "serves", "challenger", "copies for a rollback", "refused"), rows)


def _stages_table(rest: "MlflowRest") -> object:
    from registry.contracts import PRODUCTION, STAGING
    from registry.errors import IncoherentRelease, UnknownVersion

    rows: list[tuple[str, ...]] = []
    for stage in (PRODUCTION, STAGING):
        try:
            rows.append((stage, *_release_cells(rest, rest.resolve_stage(stage))))
        except IncoherentRelease as error:
            rows.append((stage, "-", str(error), "", ""))
    try:
        rows.append(("candidate", *_release_cells(rest, rest.release_candidate())))
    except UnknownVersion:
        rows.append(("candidate", "-", "none", "", ""))
    return table("releases", ("stage", "release", "digests", "trained", "metrics"), rows)


def _release_cells(rest: "MlflowRest", versions: "ReleaseVersions") -> tuple[str, str, str, str]:
    from registry.contracts import ArtifactKind

    parts = [rest.version(kind, versions[kind]) for kind in ArtifactKind]
    digests = " ".join((part.digest or "?")[:8] for part in parts)
    newest = max((part.created_at for part in parts if part.created_at), default=None)
    return versions.release_id, digests, _when(newest), "\n".join(filter(None, map(_metrics, parts)))


def _metrics(version: "ModelVersion") -> str:
    from pydantic import ValidationError

    from registry.contracts import TAG_MANIFEST, Manifest

    try:
        manifest = Manifest.model_validate_json(version.tags.get(TAG_MANIFEST, ""))
    except ValidationError:
        return ""
    shown = list(manifest.metrics.items())[:_SHOWN_METRICS]
    return " ".join(f"{name}={value:.4g}" for name, value in shown)


def _history_table(title: str, history: "list[Promotion]") -> object:
    rows = [
        (
            _when(promotion.at),
            promotion.versions.release_id,
            next(filter(None, promotion.from_stages.values()), "") if promotion.is_departure else promotion.stage,
            promotion.actor,
            promotion.way,
            what_happened(promotion),
            promotion.reason,
        )
        for promotion in history
    ]
    return table(title, ("when", "release", "stage", "who", "way", "what", "why"), rows)


def what_happened(promotion: "Promotion") -> str:
    """Say in a word or two what a row of the audit tells of."""
    if promotion.is_departure:
        return "emptied"
    if promotion.rolled_back_from is not None:
        return f"rolled back from {promotion.rolled_back_from}"
    verdict = promotion.gates.get("honoured") or ("forced" if promotion.gates.get("forced") else None)
    return f"promoted ({verdict})" if verdict else "promoted"


def _when(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else ""
