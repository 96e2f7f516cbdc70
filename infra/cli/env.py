"""`duet env`: the variables with which other programs reach the servers of a running platform."""

import shlex

import typer

from infra.cli.context import current_settings


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("env", epilog='Example: eval "$(duet env)" && feast -c feature_repo feature-views list')(env)


def env(ctx: typer.Context) -> None:
    """Print the addresses of the running servers, passwords included, as a shell reads them.

    With them, Feast's and MLflow's own commands, `mlflow server` among them, and notebooks work on this platform.
    """
    from infra.endpoints import running_endpoints

    endpoints = running_endpoints(current_settings(ctx))
    variables = endpoints.environment() | {"MLFLOW_BACKEND_STORE_URI": endpoints.sqlalchemy_url("mlflow")}
    if endpoints.mlflow_url:
        variables["MLFLOW_TRACKING_URI"] = endpoints.mlflow_url
    for name, value in sorted(variables.items()):
        typer.echo(f"export {name}={shlex.quote(value)}")
