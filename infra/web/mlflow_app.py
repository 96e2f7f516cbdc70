"""MLflow's server inside our middleware: `mlflow server --app-name duet`, an app of the plug-in group `mlflow.app`.

The server runs as this account and takes the location of artefacts from its clients. So a local location is refused
where one is given, and no local folder but that of the server's own artefacts is opened, whoever named it and when.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Response, jsonify, request
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app as fastapi_app
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.file_utils import local_file_uri_to_path

from infra.settings import load_settings
from infra.web.guard import AccessMiddleware, App, guard_options

ELSEWHERE = frozenset({"mlflow-artifacts", "runs", "models", "s3", "r2", "b2", "gs", "wasbs", "abfss"})
"""Schemes of locations that are not on the server's machine, nor any page that it can reach."""
_DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"  # MLflow's own name for `--artifacts-destination`
_LOCATIONS = frozenset({"artifactlocation", "artifacturi", "mlflow.artifactlocation"})


def create_app() -> App:
    """Return the app that the server runs."""
    settings = load_settings()
    flask_app.before_request(refuse_local_locations)
    for scheme in ("", "file"):
        artifact_repository_registry._artifact_repository_registry.register(scheme, own_folder_only)  # noqa: SLF001
    return AccessMiddleware(fastapi_app, guard_options(settings, settings.mlflow.host))


def refuse_local_locations() -> Response | None:
    """Answer 400 to a request that names a location on this machine for artefacts; run before each request."""
    body = request.get_json(silent=True, force=True) if request.is_json or request.method != "GET" else None
    for name, value in [*request.args.items(multi=True), *_pairs(body)]:
        # MLflow takes its fields in two spellings: `artifact_location` and `artifactLocation`.
        is_location = name.replace("_", "").lower() in _LOCATIONS or (
            name == "source" and "model-versions" in request.path
        )
        if is_location and isinstance(value, str) and value and urlsplit(value).scheme.lower() not in ELSEWHERE:
            answer = jsonify(
                error_code="INVALID_PARAMETER_VALUE",
                message=f"`{value}` is no place for artefacts here: leave `{name}` out, or name one in "
                f"{', '.join(sorted(ELSEWHERE))}.",
            )
            answer.status_code = 400
            return answer
    return None


def own_folder_only(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> LocalArtifactRepository:
    """Return the repository of a local folder if it is the server's own; raises MlflowException for any other."""
    own = Path(local_file_uri_to_path(os.environ.get(_DESTINATION, ""))).resolve()
    if not os.environ.get(_DESTINATION) or not Path(local_file_uri_to_path(artifact_uri)).resolve().is_relative_to(own):
        raise MlflowException(
            "Artefacts on this machine are read and written through the server only.",
            error_code=INVALID_PARAMETER_VALUE,
        )
    return LocalArtifactRepository(artifact_uri, tracking_uri, registry_uri)


def _pairs(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield every name and value of a JSON document, a tag's key and value among them."""
    if isinstance(body, str):
        with contextlib.suppress(ValueError):
            yield from _pairs(json.loads(body))  # MLflow takes a document inside a string, too
    elif isinstance(body, dict):
        if isinstance(body.get("key"), str):
            yield body["key"], body.get("value")
        for name, value in body.items():
            yield name, value
            if not isinstance(value, str):
                yield from _pairs(value)
    elif isinstance(body, list):
        for item in body:
            if not isinstance(item, str):
                yield from _pairs(item)
