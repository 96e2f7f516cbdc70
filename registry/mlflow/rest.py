"""The registry over MLflow's REST API, without importing mlflow (which costs a second and 150 MB).

Only files that the manifest names are fetched, each name checked, each byte verified before the artefact appears under
its final name. Nothing is retried here: callers poll, or tell a person.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
from pydantic import JsonValue, ValidationError

from infra.files import sha256_of
from infra.web.token import bearer
from registry.contracts import (
    MANIFEST_NAME,
    MODEL_NAMES,
    NO_STAGE,
    ArtifactKind,
    Manifest,
    ModelVersion,
)
from registry.errors import CorruptArtifact, RegistryUnavailable, UnknownVersion
from registry.models.artifacts import publish, staging_directory, verify_artifact
from registry.store import ModelRegistry

_API: Final = "/api/2.0/mlflow"
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_SOURCE: Final = re.compile(r"mlflow-artifacts:(?://[^/]*)?/(?P<path>[A-Za-z0-9_./-]+)")
_PAGE: Final = 200
_MAX_PAGES: Final = 500
_MAX_MANIFEST_BYTES: Final = 4 * 2**20
MOST_CHARACTERS: Final = 5_000
"""The longest description of a version: more is refused by MLflow's database."""
_CUT: Final = "\n\nMLflow keeps no more here; `duet judge` prints the whole."
_ABSENT: Final = frozenset({"RESOURCE_DOES_NOT_EXIST"})
# MLflow's server closes a connection that rests for 5 s: one that is sent on at that instant breaks the call.
_KEPT_ALIVE_S: Final = 2.0


def fitting(description: str) -> str:
    """Return as many whole lines of a description as MLflow's database keeps, with a last line that says so."""
    if len(description) <= MOST_CHARACTERS:
        return description
    lines, _, _ = description[: MOST_CHARACTERS - len(_CUT)].rpartition("\n")
    return lines + _CUT


class MlflowRest(ModelRegistry):
    """A registry on the MLflow server at `url`; close it, or use it as a context manager.

    `token` is sent with every request, as MLflow's own client does with MLFLOW_TRACKING_TOKEN.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url,
            headers=bearer(token),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 2.0)),
            transport=transport,
            limits=httpx.Limits(keepalive_expiry=_KEPT_ALIVE_S),
            follow_redirects=False,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def check(self) -> None:
        """Raise RegistryUnavailable unless the server answers."""
        self._send("GET", "/health")

    def versions(self, kind: ArtifactKind) -> list[ModelVersion]:
        """List all versions, newest first."""
        found: list[ModelVersion] = []
        token: str | None = None
        for _ in range(_MAX_PAGES):
            params: dict[str, str | int] = {"filter": f"name='{MODEL_NAMES[kind]}'", "max_results": _PAGE}
            if token:
                params["page_token"] = token
            answer = self._call("GET", "model-versions/search", params=params)
            found += [_version(kind, row) for row in _rows(answer, "model_versions")]
            next_token = answer.get("next_page_token")
            token = next_token if isinstance(next_token, str) else None
            if not token:
                break
        return sorted(found, key=lambda version: -version.version)

    def in_stage(self, stage: str) -> dict[ArtifactKind, ModelVersion]:
        """Return the newest version in the stage of each model: three small requests, cheap enough to poll."""
        found: dict[ArtifactKind, ModelVersion] = {}
        for kind in ArtifactKind:
            answer = self._call(
                "GET",
                "registered-models/get-latest-versions",
                params={"name": MODEL_NAMES[kind], "stages": stage},
                absent_is_empty=True,
            )
            standing = [_version(kind, row) for row in _rows(answer, "model_versions")]
            if standing:
                found[kind] = max(standing, key=lambda version: version.version)
        return found

    def version(self, kind: ArtifactKind, version: int) -> ModelVersion:
        """Return one version; raise UnknownVersion."""
        answer = self._call("GET", "model-versions/get", params=_key(kind, version))
        return _version(kind, _row(answer, "model_version"))

    def transition_stage(
        self, kind: ArtifactKind, version: int, stage: str, *, archive_existing: bool = True
    ) -> ModelVersion:
        """Move a version to a stage; what stood there is archived in the same transaction of MLflow."""
        body: dict[str, JsonValue] = {
            **_key(kind, version),
            "stage": stage,
            "archive_existing_versions": archive_existing,
        }
        answer = self._call("POST", "model-versions/transition-stage", json=body)
        return _version(kind, _row(answer, "model_version"))

    def set_alias(self, kind: ArtifactKind, alias: str, version: int) -> None:
        """Point an alias at a version."""
        body = {"name": MODEL_NAMES[kind], "alias": alias, "version": str(version)}
        self._call("POST", "registered-models/alias", json=body)

    def delete_alias(self, kind: ArtifactKind, alias: str) -> None:
        """Remove an alias, if it is there."""
        body = {"name": MODEL_NAMES[kind], "alias": alias}
        self._call("DELETE", "registered-models/alias", json=body, absent_is_empty=True)

    def aliases(self, kind: ArtifactKind) -> dict[str, int]:
        """Return the version that each alias points at."""
        answer = self._call("GET", "registered-models/get", params={"name": MODEL_NAMES[kind]}, absent_is_empty=True)
        model = answer.get("registered_model")
        rows = _rows(model, "aliases") if isinstance(model, dict) else []
        return {str(row["alias"]): int(str(row["version"])) for row in rows}

    def _found(self, path: str, params: Mapping[str, str | int], kind: ArtifactKind) -> ModelVersion | None:
        """Return the version that an address answers with, None where there is none."""
        answer = self._call("GET", path, params=params, absent_is_empty=True)
        return _version(kind, _row(answer, "model_version")) if answer else None

    def set_tag(self, kind: ArtifactKind, version: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        self._call("POST", "model-versions/set-tag", json={**_key(kind, version), "key": key, "value": value})

    def describe(self, kind: ArtifactKind, version: int, description: str) -> None:
        """Replace the description of a version by as much of it as MLflow keeps."""
        kept = {**_key(kind, version), "description": fitting(description)}
        self._call("PATCH", "model-versions/update", json=kept)

    def download(self, kind: ArtifactKind, version: int, directory: Path) -> Manifest:
        """Fetch, verify and publish a version's artefact at `directory`; a verified copy already there is kept."""
        expected = self.version(kind, version).digest
        if not expected:
            raise CorruptArtifact(
                f"{MODEL_NAMES[kind]} version {version} has no digest tag, so its bytes cannot be verified: "
                "register it with Duet."
            )
        if (directory / MANIFEST_NAME).exists():
            return verify_artifact(directory, expected)
        root = self._artifact_root(kind, version)
        with staging_directory(directory) as staged:
            manifest = self._fetch_manifest(root, expected, staged / MANIFEST_NAME)
            manifest.expect(kind)
            for name, entry in manifest.files.items():
                self._fetch(f"{root}/{name}", staged / name, entry.size)
                found = sha256_of(staged / name)
                if found != entry.sha256:
                    raise CorruptArtifact(
                        f"`{name}` of {MODEL_NAMES[kind]} version {version} has sha256 {found}, expected "
                        f"{entry.sha256}: the artefact store was changed, do not use this version."
                    )
            return publish(staged, directory, manifest)

    def _artifact_root(self, kind: ArtifactKind, version: int) -> str:
        answer = self._call("GET", "model-versions/get-download-uri", params=_key(kind, version))
        uri = str(answer.get("artifact_uri", ""))
        match = _SOURCE.fullmatch(uri)
        if match is None or ".." in match["path"].split("/"):
            raise CorruptArtifact(
                f"{MODEL_NAMES[kind]} version {version} lies at `{uri}`, where Duet does not fetch from: "
                "serve artefacts through the MLflow server."
            )
        return match["path"].strip("/")

    def _fetch_manifest(self, root: str, expected: str, path: Path) -> Manifest:
        self._fetch(f"{root}/{MANIFEST_NAME}", path, _MAX_MANIFEST_BYTES, exact=False)
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise CorruptArtifact(f"`{root}/{MANIFEST_NAME}` is not a manifest: {error.errors()[0]['msg']}.") from error
        if manifest.digest != expected:
            raise CorruptArtifact(
                f"`{root}/{MANIFEST_NAME}` has digest {manifest.digest}, its version's tag says {expected}: "
                "the artefact store was changed, do not use this version."
            )
        return manifest

    def _fetch(self, remote: str, path: Path, size: int, *, exact: bool = True) -> None:
        received = 0
        try:
            with self._client.stream("GET", f"{_ARTIFACTS}/{quote(remote)}") as answer, path.open("wb") as file:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    raise CorruptArtifact(f"`{remote}` is missing in the artefact store of {self.url}.")
                if answer.status_code != httpx.codes.OK:
                    raise RegistryUnavailable(f"MLflow at {self.url} answered {answer.status_code} for `{remote}`.")
                for chunk in answer.iter_bytes(2**20):
                    received += len(chunk)
                    if received > size:
                        break
                    file.write(chunk)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        if received > size or (exact and received != size):
            raise CorruptArtifact(f"`{remote}` gave {received} bytes or more, expected {size}.")

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Mapping[str, JsonValue] | None = None,
        absent_is_empty: bool = False,
    ) -> dict[str, Any]:
        answer = self._send(method, f"{_API}/{path}", params=params, json=json)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise RegistryUnavailable(f"MLflow at {self.url} asks for another token: set `DUET_MLFLOW__TOKEN`.")
        try:
            content = answer.json()
        except ValueError as error:
            raise RegistryUnavailable(
                f"{self.url} does not answer like an MLflow server ({answer.status_code})."
            ) from error
        if not isinstance(content, dict):
            raise RegistryUnavailable(f"{self.url} does not answer like an MLflow server.")
        if answer.is_success:
            return content
        code = str(content.get("error_code", ""))
        # A registry that never heard of the model says so with the same code as one that lacks a version.
        if code in _ABSENT or (absent_is_empty and "not found" in str(content.get("message", "")).lower()):
            if absent_is_empty:
                return {}
            raise UnknownVersion(f"MLflow at {self.url} says: {_sentence(content)}")
        raise RegistryUnavailable(f"MLflow at {self.url} refused {path} ({answer.status_code}): {_sentence(content)}")

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        json: Mapping[str, JsonValue] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, path, params=params, json=json)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise RegistryUnavailable(f"MLflow at {self.url} answered {answer.status_code}: look at its log.")
        return answer

    def _unavailable(self, error: httpx.HTTPError) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"MLflow at {self.url} does not answer ({type(error).__name__}): start it with `duet up` or check the URL."
        )


def _key(kind: ArtifactKind, version: int) -> dict[str, str]:
    return {"name": MODEL_NAMES[kind], "version": str(version)}


def _sentence(content: Mapping[str, Any]) -> str:
    return " ".join(str(content.get("message", "no message")).split())[:300]


def _rows(answer: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    rows = answer.get(name, [])
    if not isinstance(rows, list):
        raise RegistryUnavailable(f"MLflow's answer has `{name}` in a shape that Duet does not know.")
    return (row for row in rows if isinstance(row, dict))


def _row(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    row = answer.get(name)
    if not isinstance(row, dict):
        raise RegistryUnavailable(f"MLflow's answer has no `{name}`.")
    return row


def _version(kind: ArtifactKind, row: Mapping[str, Any]) -> ModelVersion:
    try:
        return ModelVersion(
            kind=kind,
            version=int(row["version"]),
            stage=str(row.get("current_stage") or NO_STAGE),
            tags={str(tag["key"]): str(tag.get("value", "")) for tag in row.get("tags", [])},
            run_id=str(row["run_id"]) if row.get("run_id") else None,
            created_at=_instant(row, "creation_timestamp"),
            updated_at=_instant(row, "last_updated_timestamp"),
            description=str(row.get("description", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RegistryUnavailable("MLflow's answer describes a version in a shape that Duet does not know.") from error


def _instant(row: Mapping[str, Any], name: str) -> datetime | None:
    milliseconds = int(row.get(name, 0))
    return datetime.fromtimestamp(milliseconds / 1_000, UTC) if milliseconds else None
