"""`duet db-roles`: give the database roles of serving, the pipelines and MLflow what they need, and no more."""

from typing import Annotated

import typer

from infra.cli.console import print_success
from infra.cli.context import current_settings


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("db-roles", epilog="Example: duet db-roles --serving duet_serving --pipelines duet_pipelines")(db_roles)


def db_roles(
    ctx: typer.Context,
    serving: Annotated[str, typer.Option(help="Role of the serving app.")] = "duet_serving",
    pipelines: Annotated[str, typer.Option(help="Role of Dagster and of training.")] = "duet_pipelines",
    mlflow: Annotated[str | None, typer.Option(help="Role of MLflow's server, if it has one of its own.")] = None,
) -> None:
    """Give database roles exactly what they need; run it as the owner, after each migration.

    Serving can neither change the schema nor read imports, experiments' history or Dagster's and MLflow's tables; the
    pipelines can read no API key; a role of MLflow's server owns MLflow's tables and sees nothing else. The roles must
    exist, with passwords of their own. Members of the owner's role stop being so.
    """
    from infra.db.postgres import connect
    from infra.db.roles import grant_roles
    from infra.endpoints import open_endpoints

    with (
        open_endpoints(current_settings(ctx)) as endpoints,
        connect(endpoints.database_url, autocommit=True) as connection,
    ):
        grant_roles(connection, serving=serving, pipelines=pipelines, mlflow=mlflow)
    print_success(f"`{serving}` may serve, `{pipelines}` may train, and neither may do more")
