"""Groups of commands that several packages share: whoever comes first makes the group, none imports the other."""

import typer

GROUPS = {"experiment": "Compare the release in Staging with the one in Production, on live requests."}


def group(app: typer.Typer, name: str) -> typer.Typer:
    """Return the group of this name of `app`, made when it is not there yet."""
    for present in app.registered_groups:
        if present.name == name and present.typer_instance is not None:
            return present.typer_instance
    made = typer.Typer(help=GROUPS[name], no_args_is_help=True)
    app.add_typer(made, name=name)
    return made
