"""`duet promote`, `duet rollback` and `duet releases`: the release life cycle from the command line."""

import contextlib
import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.console import out, print_success, table
from infra.cli.context import current_settings
from infra.settings import Settings

if TYPE_CHECKING:
    from registry.audit import PostgresPromotionLog, Promotion
    from registry.cache import ReleaseCache
    from registry.contracts import ModelVersion, ReleaseVersions
    from registry.mlflow_rest import MlflowRest

_SHOWN_METRICS: Final = 3


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("promote", epilog="Example: duet promote --reason 'wins on held-out matches'")(promote)
    app.command("rollback", epilog="Example: duet rollback --to e3-i5-r2")(rollback)
    app.command("releases", epilog="Example: duet releases --at '2026-06-01 12:00'")(releases)


def promote(
    ctx: typer.Context,
    *,
    release_candidate: Annotated[
        str, typer.Option(help="Name of a release candidate; `latest` is the newest coherent one.")
    ] = "latest",
    embedding: Annotated[int | None, typer.Option(min=1, help="Embedding version, with --index and --ranker.")] = None,
    index: Annotated[int | None, typer.Option(min=1, help="Index version.")] = None,
    ranker: Annotated[int | None, typer.Option(min=1, help="Ranker version.")] = None,
    staging: Annotated[bool, typer.Option("--staging", help="Promote to Staging, as the challenger.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overrule failed or missing gates; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
) -> None:
    """Put a release that passed its gates into Production: verified first, moved in MLflow, recorded in the audit."""
    from registry.contracts import PRODUCTION, STAGING, ReleaseVersions
    from registry.promotion import promote as move

    parts = (embedding, index, ranker)
    if any(part is not None for part in parts) and any(part is None for part in parts):
        raise typer.BadParameter("name all three of --embedding, --index and --ranker, or none")
    stage = STAGING if staging else PRODUCTION
    with _opened(current_settings(ctx)) as opened:
        if embedding is not None and index is not None and ranker is not None:
            versions = ReleaseVersions(embedding, index, ranker)
        else:
            versions = opened.rest.release_candidate(release_candidate)
        move(
            opened.rest,
            opened.log,
            versions,
            actor=getpass.getuser(),
            way="cli",
            reason=reason,
            stage=stage,
            force=force,
            cache=opened.cache,
        )
    print_success(f"{versions.release_id} is in {stage}")


def rollback(
    ctx: typer.Context,
    to: Annotated[str | None, typer.Option(help="Release to go back to; default: the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
) -> None:
    """Put an earlier release back into Production."""
    from registry.contracts import ReleaseVersions
    from registry.promotion import rollback as move_back

    target = ReleaseVersions.parse(to) if to is not None else None
    with _opened(current_settings(ctx)) as opened:
        versions = move_back(
            opened.rest,
            opened.log,
            actor=getpass.getuser(),
            way="cli",
            reason=reason,
            to=target,
            cache=opened.cache,
        )
    print_success(f"{versions.release_id} is back in Production")


def releases(
    ctx: typer.Context,
    at: Annotated[datetime | None, typer.Option(help="Show only the release active at this instant (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many promotions to show.")] = 20,
) -> None:
    """Show what is in Production and Staging, what waits to be promoted, and who moved what when."""
    from registry.audit import release_at
    from registry.contracts import PRODUCTION, STAGING

    with _opened(current_settings(ctx)) as opened:
        if at is not None:
            instant = at.replace(tzinfo=UTC) if at.tzinfo is None else at
            found = release_at(opened.log, instant)
            if found is None:
                print_success(f"no release was in Production at {_when(instant)}")
            else:
                out().print(_history_table(f"in Production at {_when(instant)}", [found]))
            return
        out().print(_stages_table(opened.rest))
        history = [*opened.log.history(PRODUCTION, limit), *opened.log.history(STAGING, limit)]
        history.sort(key=lambda promotion: promotion.at or datetime.min.replace(tzinfo=UTC), reverse=True)
        out().print(_history_table("promotions", history[:limit]))


@dataclass(frozen=True)
class _Opened:
    rest: "MlflowRest"
    log: "PostgresPromotionLog"
    cache: "ReleaseCache"


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[_Opened]:
    from infra.endpoints import open_endpoints
    from infra.postgres import connect
    from registry.audit import PostgresPromotionLog
    from registry.cache import ReleaseCache
    from registry.errors import RegistryUnavailable
    from registry.mlflow_rest import MlflowRest

    with open_endpoints(settings, mlflow=True) as endpoints:
        if endpoints.mlflow_url is None:
            raise RegistryUnavailable("There is no MLflow server: set `DUET_MLFLOW__URL` or run `duet up`.")
        with (
            MlflowRest(endpoints.mlflow_url, timeout_s=settings.mlflow.request_timeout_s) as rest,
            connect(endpoints.database_url) as connection,
        ):
            yield _Opened(rest, PostgresPromotionLog(connection), ReleaseCache(settings.data_dir / "releases"))


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
            promotion.stage,
            promotion.actor,
            promotion.way,
            f"rolled back from {promotion.rolled_back_from}" if promotion.rolled_back_from else "promoted",
            promotion.reason,
        )
        for promotion in history
    ]
    return table(title, ("when", "release", "stage", "who", "way", "what", "why"), rows)


def _when(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else ""
