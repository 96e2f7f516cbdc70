"""`duet promote` and `duet rollback`: moving releases from the command line."""

import getpass
from typing import Annotated

import typer

from infra.cli.console import print_note, print_success
from infra.cli.context import current_settings
from registry.promotion import views as release_views
from registry.promotion.followers import PROMOTION_S, ROLLBACK_S, refusals, wait_until_challenging, wait_until_served
from registry.promotion.opened import opened, reached


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("promote", epilog="Example: duet promote --reason 'wins on held-out matches'")(promote)
    app.command("rollback", epilog="Example: duet rollback --to e3-i5-r2")(rollback)
    app.command("releases", epilog="Example: duet releases --at '2026-06-01 12:00'")(release_views.releases)


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
    wait: Annotated[bool, typer.Option(help="Wait until the serving workers serve it, for at most a minute.")] = True,
) -> None:
    """Put a release that passed its gates into Production: verified, moved in MLflow, audited, and served."""
    from feature_repo.schema import offered_schema
    from registry.contracts import PRODUCTION, STAGING, ReleaseVersions
    from registry.promotion.history import standing_mark
    from registry.promotion.promotion import promote as move

    parts = (embedding, index, ranker)
    if any(part is not None for part in parts) and any(part is None for part in parts):
        raise typer.BadParameter("name all three of --embedding, --index and --ranker, or none")
    stage = STAGING if staging else PRODUCTION
    with opened(current_settings(ctx)) as servers:
        if embedding is not None and index is not None and ranker is not None:
            versions = ReleaseVersions(embedding, index, ranker)
        else:
            versions = servers.rest.release_candidate(release_candidate)
        before = refusals(servers.connection, stage)
        move(
            servers.rest,
            servers.log,
            versions,
            actor=getpass.getuser(),
            way="cli",
            feature_schema=offered_schema(),
            reason=reason,
            stage=stage,
            force=force,
            cache=servers.cache,
        )
        print_success(f"{versions.release_id} is in {stage}")
        mark = standing_mark(servers.log, versions, stage)
        if wait and staging:
            wait_until_challenging(servers.connection, versions.release_id, before, mark=mark)
        elif wait:
            wait_until_served(servers.connection, versions.release_id, PROMOTION_S, before, mark=mark)


def rollback(
    ctx: typer.Context,
    to: Annotated[
        str | None,
        typer.Option(help="Release to go back to, `e3-i5-r2` or `e3-i5-r2@1a2b3c`; default: the one before."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
) -> None:
    """Put an earlier release back into Production, MLflow reachable or not, and wait until the workers serve it."""
    from feature_repo.schema import offered_schema
    from registry.contracts import ReleaseVersions
    from registry.promotion.history import standing_mark
    from registry.promotion.promotion import rollback as move_back

    name, _, mark = (to or "").partition("@")
    target = ReleaseVersions.parse(name) if to is not None else None
    with reached(current_settings(ctx)) as servers:
        versions = move_back(
            servers.rest,
            servers.log,
            actor=getpass.getuser(),
            way="cli",
            feature_schema=offered_schema(),
            reason=reason,
            to=target,
            mark=mark or None,
            cache=servers.cache,
        )
        print_success(f"{versions.release_id} is back in Production")
        waiting = release_views.why_pinned(servers)
        if waiting is not None:
            print_note(waiting)
        served = standing_mark(servers.log, versions)
        wait_until_served(servers.connection, versions.release_id, ROLLBACK_S, mark=served)
