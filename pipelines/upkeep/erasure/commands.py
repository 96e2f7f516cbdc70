"""`duet erase`: forget a person everywhere, and prove it."""

import getpass
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli.console import out, print_note, print_success, table
from infra.cli.context import current_settings


def register_erase(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("erase", epilog="Example: duet erase 42; later: duet erase --report 42")(erase)
    app.command("erase-again", epilog="Example: duet erase-again erasures.jsonl --after '2026-06-01 12:00'")(
        erase_again
    )


def erase(
    ctx: typer.Context,
    person: Annotated[str, typer.Argument(help="Id of the person: the number, or what your app calls them.")],
    only_report: Annotated[bool, typer.Option("--report", help="Tell what became of it; erase nobody.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Erase a person from every place that holds them, and report what was found and what is left in each.

    Nobody is shown them from the first moment on. What only time empties (answers that are kept for minutes, people in
    the memory of serving) is waited for by the sensor `erase_people_soon`, or by this command when it is given again.
    Models that saw them are named: train and promote a new release, and roll back to none of those. The report stays
    and knows the person by a salted hash only. Whoever comes back under the same id is a new person.
    """
    from infra.db import erasures
    from infra.person_names import PersonNames
    from pipelines.runs.opening import opened_platform
    from pipelines.upkeep.erasure.errors import NobodyToErase
    from pipelines.upkeep.erasure.passes import pass_over
    from pipelines.upkeep.erasure.whom import known_by, spelled

    settings = current_settings(ctx)
    hashed = PersonNames.of(settings)
    with opened_platform(settings) as platform, platform.connection(autocommit=True) as connection:
        if not only_report:
            known = known_by(connection, person)
            if known is not None:
                if not yes:
                    typer.confirm(f"Erase {person} for good, with everything they did?", abort=True)
                erasures.begin(connection, known.user_id, known.texts, hashed, way="cli", actor=getpass.getuser())
            pass_over(platform)
        report = erasures.report(connection, hashed(spelled(person)))
    if report is None:
        raise NobodyToErase(f"Nobody has the id {person}, and nobody with it was erased: there is no report.")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    _print(report)


def erase_again(
    ctx: typer.Context,
    journal: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A copy of `erasures.jsonl`.")],
    after: Annotated[str, typer.Option(help="The moment that the database was brought back to, ISO 8601, UTC.")],
) -> None:
    """Erase again whoever was erased after the moment that the database was brought back to.

    For a recovery to a point in time; `duet restore` does this by itself. The journal knows people by salted hashes, so
    `DUET_LOGGING__PERSON_SALT`, or the salt in the data folder, must be the one that it was written with.
    """
    from infra.backup import erased
    from infra.db.postgres import connect
    from infra.endpoints import open_endpoints
    from infra.person_names import PersonNames
    from pipelines.ingest.snapshots import parse_instant

    settings = current_settings(ctx)
    hashed = erased.journaled([journal], parse_instant(after, "--after"))
    with (
        open_endpoints(settings) as endpoints,
        connect(endpoints.database_url, autocommit=True) as connection,
    ):
        people = erased.erase_again(connection, hashed, PersonNames.of(settings), getpass.getuser())
    if hashed and not people:
        print_note(erased.NOBODY_FOUND)
        return
    print_success(f"{people} people are erased again; the sensor `erase_people_soon` does the rest")


def _print(report: dict[str, Any]) -> None:
    rows = [
        [one["place"], str(one["before"]), str(one["after"]), one.get("waits", "")]
        for one in sorted(report["places"], key=lambda one: str(one["place"]))
    ]
    title = f"Erasure {report['erasure_id']} of {report['person']}, by {report['actor']}"
    out().print(table(title, ["place", "found", "left", "waits for"], rows, right=range(1, 3)))
    if report["models"]:
        models = [[one["model"], str(one["version"]), one["stage"]] for one in report["models"]]
        out().print(table("Models that may have seen them", ["model", "version", "stage"], models, right=[1]))
    if report["status"] == "finished":
        print_success(f"erased since {report['finished_at']}")
    else:
        print_note("not finished: the sensor `erase_people_soon` carries it on, and so does the same command again")
