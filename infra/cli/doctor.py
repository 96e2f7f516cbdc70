"""`duet doctor`: what is wrong on this machine, and what to do about each thing."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from infra.cli.console import out, print_success
from infra.cli.context import current_settings


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("doctor", epilog="Example: duet doctor")(doctor)


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list for programs.")] = False,
) -> None:
    """Check Python, packages, machine, ports, secrets and servers; exit code 1 when a check fails."""
    from infra.cli.checks import CHECKS

    settings = current_settings(ctx)
    console = out()
    findings = []
    for check in CHECKS:
        for finding in check(settings):
            findings.append(finding)
            if not as_json:
                console.print(f"{'[green]✓[/]' if finding.ok else '[red]✗[/]'} {finding.name}: {escape(finding.seen)}")
                if not finding.ok:
                    console.print(f"  [yellow]→[/] {escape(finding.remedy)}")
    failed = sum(not finding.ok for finding in findings)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    elif not failed:
        print_success(f"all {len(findings)} checks are well")
    else:
        console.print(f"[red]{failed} of {len(findings)} checks failed[/]")
    if failed:
        raise typer.Exit(1)
