"""Logging to MLflow: runs, artefacts and versions.

Artefacts are uploaded as plain files, with MLflow's flavours beside them, and no pickle is ever written. The version is
registered last: a run that dies before leaves a failed run and no version.
"""

import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, SourceType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE
from pydantic import JsonValue

from infra.faults import failpoint
from infra.web.token import give_to_mlflow
from registry.contracts import (
    MANIFEST_NAME,
    MODEL_NAMES,
    MODEL_TRAINING,
    TAG_DATASET_DIGEST,
    TAG_DIGEST,
    TAG_EMBEDDING_DIGEST,
    TAG_FEATURE_SCHEMA,
    TAG_MANIFEST,
    TAG_RELEASE_CANDIDATE,
    ArtifactKind,
    Manifest,
)
from registry.errors import RegistrationFailed
from registry.mlflow.rest import fitting
from registry.models.artifacts import verify_artifact

_ARTIFACT_PATH: Final = "artifact"
_PARENT_RUN: Final = "mlflow.parentRunId"
_LINEAGE_TAGS: Final = (TAG_EMBEDDING_DIGEST, TAG_FEATURE_SCHEMA, TAG_DATASET_DIGEST, "code_version")
_MAX_PARAM: Final = 6_000
_BATCH: Final = 100
_MAX_DATASET_DIGEST: Final = 36
_INSTANTS: Final = ("as_of", "t0", "t1")
_log = logging.getLogger(__name__)


class MlflowStore:
    """Writes runs and versions to the MLflow server at `tracking_url`, into one experiment."""

    def __init__(self, tracking_url: str, experiment: str = "duet", token: str | None = None) -> None:
        give_to_mlflow(token)
        self._experiment = experiment
        self._url = tracking_url
        self._client = mlflow.MlflowClient(tracking_uri=tracking_url, registry_uri=tracking_url)

    def log_version(
        self,
        kind: ArtifactKind,
        directory: Path,
        *,
        params: Mapping[str, JsonValue] | None = None,
        metrics: Mapping[str, float] | None = None,
        curves: Mapping[str, Sequence[float]] | None = None,
        figures: Mapping[str, bytes] | None = None,
        tables: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        release_candidate: str | None = None,
        run_name: str | None = None,
        dagster_run_id: str | None = None,
        dagster_url: str | None = None,
    ) -> int:
        """Log an artefact directory with all that explains it, register it and return its version.

        `curves` are metrics of each step of the training, `figures` PNG bytes by file name, `tables` text (CSV,
        Markdown, HTML) by file name. Parameters, metrics and data of the manifest are logged too. The run is named
        after the version, and after the first release that it becomes a candidate of. The same digest logged again
        returns its version, with the new `release_candidate` added to it. Raises RegistrationFailed, and then nothing
        is registered.
        """
        manifest = verify_artifact(directory)
        manifest.expect(kind)
        with self._failing_plainly(f"{MODEL_NAMES[kind]} {manifest.digest[:12]}"):
            existing = self._find(kind, manifest.digest)
            self._close_left_over(manifest.digest, "KILLED" if existing is None else "FINISHED")
            if existing is not None:
                self._add_release_candidate(kind, existing, release_candidate)
                return existing
            every_metric = {**manifest.metrics, **(metrics or {})}
            every_tag = _tags(manifest, tags, dagster_run_id, dagster_url)
            with self._run(run_name or f"{kind.value}-{manifest.digest[:8]}", every_tag) as run_id:
                failpoint(f"{kind}.after_run")
                self._log(run_id, {**manifest.parameters, **(params or {})}, every_metric, curves or {})
                self._client.log_inputs(run_id, _datasets(manifest))
                failpoint(f"{kind}.after_metrics")
                self._log_files(run_id, figures or {}, tables or {})
                failpoint(f"{kind}.after_figures")
                self._log_flavours(kind, directory, manifest, run_id)
                for name in (*manifest.files, MANIFEST_NAME):
                    self._client.log_artifact(run_id, str(directory / name), _ARTIFACT_PATH)
                    failpoint(f"{kind}.after_file")
                failpoint(f"{kind}.after_upload")
                version = self._register(
                    kind,
                    run_id,
                    {
                        **every_tag,
                        TAG_MANIFEST: json.dumps(manifest.model_dump(mode="json"), sort_keys=True),
                        **({TAG_RELEASE_CANDIDATE: release_candidate} if release_candidate else {}),
                    },
                    _description(manifest, every_metric, dagster_url),
                )
                self._client.update_run(run_id, name=_run_name(run_name, kind, version, release_candidate))
                failpoint(f"{kind}.after_version")
        _log.info("registered %s version %d (%s)", MODEL_NAMES[kind], version, manifest.digest[:12])
        return version

    def log_evaluation(
        self,
        *,
        name: str,
        metrics: Mapping[str, float],
        params: Mapping[str, JsonValue] | None = None,
        figures: Mapping[str, bytes] | None = None,
        tables: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        dagster_run_id: str | None = None,
        dagster_url: str | None = None,
        parent: str | None = None,
    ) -> str:
        """Log a run of figures, tables and plots without a version, below `parent` if given, and return its id."""
        above = {_PARENT_RUN: parent} if parent else {}
        with (
            self._failing_plainly(name),
            self._run(name, _link_tags({**(tags or {}), **above}, dagster_run_id, dagster_url)) as run_id,
        ):
            self._log(run_id, params or {}, metrics)
            self._log_files(run_id, figures or {}, tables or {})
        return run_id

    @contextlib.contextmanager
    def open_run(
        self,
        name: str,
        *,
        params: Mapping[str, JsonValue] | None = None,
        tags: Mapping[str, str] | None = None,
        dagster_run_id: str | None = None,
        dagster_url: str | None = None,
    ) -> Iterator[str]:
        """Keep a run open for the block, for others below it, and give its id; it has failed if the block raises."""
        with contextlib.ExitStack() as stack:
            with self._failing_plainly(name):
                run_id = stack.enter_context(self._run(name, _link_tags(tags, dagster_run_id, dagster_url)))
                self._log(run_id, params or {}, {})
            yield run_id

    def log_to(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, JsonValue] | None = None,
        figures: Mapping[str, bytes] | None = None,
        tables: Mapping[str, str] | None = None,
    ) -> None:
        """Log to a run that is open; raises RegistrationFailed."""
        with self._failing_plainly(f"run {run_id}"):
            self._log(run_id, params or {}, metrics)
            self._log_files(run_id, figures or {}, tables or {})

    def run_url(self, run_id: str) -> str:
        """Return the address of a run in MLflow's UI."""
        experiment = self._client.get_run(run_id).info.experiment_id
        return f"{self._url.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}?{MODEL_TRAINING}"

    @contextlib.contextmanager
    def _failing_plainly(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError) as error:
            first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise RegistrationFailed(f"{what} could not be logged to MLflow at {self._url}: {first}") from error

    @contextlib.contextmanager
    def _run(self, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        run = self._client.create_run(self._experiment_id(), run_name=name, tags=dict(tags))
        run_id: str = run.info.run_id
        try:
            yield run_id
        except BaseException:
            # The first error is the one to show; a server that is gone cannot be told either.
            with contextlib.suppress(MlflowException, OSError):
                self._client.set_terminated(run_id, status="FAILED")
            raise
        self._client.set_terminated(run_id, status="FINISHED")

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            return str(self._client.get_experiment_by_name(self._experiment).experiment_id)

    def _log(
        self,
        run_id: str,
        params: Mapping[str, JsonValue],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        all_metrics = [Metric(_metric_name(name), float(value), now_ms, 0) for name, value in metrics.items()]
        for name, values in curves.items():
            steps = enumerate(values, start=1)
            all_metrics += [Metric(_metric_name(name), float(value), now_ms, step) for step, value in steps]
        all_params = [Param(name, _text(value)[:_MAX_PARAM]) for name, value in params.items()]
        for start in range(0, max(len(all_metrics), 1), 10 * _BATCH):
            self._client.log_batch(run_id, metrics=all_metrics[start : start + 10 * _BATCH])
        for start in range(0, len(all_params), _BATCH):
            self._client.log_batch(run_id, params=all_params[start : start + _BATCH])

    def _log_files(self, run_id: str, figures: Mapping[str, bytes], tables: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in figures.items():
                path = Path(folder) / "figures" / _plain(name, ".png")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            for name, text in tables.items():
                path = Path(folder) / "tables" / _plain(name, ".csv")
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            if any(Path(folder).iterdir()):
                self._client.log_artifacts(run_id, folder)

    def _log_flavours(self, kind: ArtifactKind, directory: Path, manifest: Manifest, run_id: str) -> None:
        # MLflow's pyfunc takes a second to import, and nothing but a registration needs it.
        from registry.mlflow.flavours import write_flavours

        with tempfile.TemporaryDirectory() as folder:
            write_flavours(kind, directory, manifest, Path(folder))
            self._client.log_artifacts(run_id, str(Path(folder) / "model"), _ARTIFACT_PATH)

    def _find(self, kind: ArtifactKind, digest: str) -> int | None:
        found = self._client.search_model_versions(
            f"name = '{MODEL_NAMES[kind]}' and tags.{TAG_DIGEST} = '{digest}'", max_results=100
        )
        return max((int(version.version) for version in found), default=None)

    def _close_left_over(self, digest: str, status: str) -> None:
        """End the runs that killed processes left open over this artefact: nobody else would, ever."""
        left = self._client.search_runs(
            [self._experiment_id()], f"attributes.status = 'RUNNING' and tags.{TAG_DIGEST} = '{digest}'"
        )
        for run in left:
            self._client.set_terminated(run.info.run_id, status=status)

    def _register(self, kind: ArtifactKind, run_id: str, tags: Mapping[str, str], description: str) -> int:
        name = MODEL_NAMES[kind]
        try:
            self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            self._create_model(kind)
        root = self._client.get_run(run_id).info.artifact_uri
        # All tags travel with the creation, so no moment exists in which a version has no digest.
        version = self._client.create_model_version(
            name, f"{root}/{_ARTIFACT_PATH}", run_id, tags=dict(tags), description=fitting(description)
        )
        return int(version.version)

    def _create_model(self, kind: ArtifactKind) -> None:
        with contextlib.suppress(MlflowException):  # two first runs may race; the loser finds it existing
            self._client.create_registered_model(MODEL_NAMES[kind], description=f"Duet: the {kind.value} of a release.")

    def _add_release_candidate(self, kind: ArtifactKind, version: int, candidate: str | None) -> None:
        if candidate is None:
            return
        name = MODEL_NAMES[kind]
        tags: dict[str, str] = self._client.get_model_version(name, str(version)).tags
        present = [part for part in tags.get(TAG_RELEASE_CANDIDATE, "").split(",") if part]
        if candidate not in present:
            joined = ",".join([*present, candidate][-50:])
            self._client.set_model_version_tag(name, str(version), TAG_RELEASE_CANDIDATE, joined)
            if not present:
                run_id = self._client.get_model_version(name, str(version)).run_id
                self._client.update_run(run_id, name=_run_name(None, kind, version, candidate))


def _tags(
    manifest: Manifest, tags: Mapping[str, str] | None, dagster_run_id: str | None, dagster_url: str | None
) -> dict[str, str]:
    lineage: dict[str, str] = {name: manifest.lineage[name] for name in _LINEAGE_TAGS if name in manifest.lineage}
    if manifest.kind is ArtifactKind.EMBEDDING:
        lineage[TAG_EMBEDDING_DIGEST] = manifest.digest
    return {
        TAG_DIGEST: manifest.digest,
        **lineage,
        **_source(manifest),
        **_link_tags(tags, dagster_run_id, dagster_url),
    }


def _source(manifest: Manifest) -> dict[str, str]:
    """Say where the run came from, in the tags that MLflow's column `Source` reads."""
    commit = str(manifest.lineage.get("code_version", ""))
    found = {
        MLFLOW_SOURCE_NAME: f"duet {manifest.kind.value}",
        MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.JOB),
    }
    return {**found, **({MLFLOW_GIT_COMMIT: commit} if commit else {})}


def _datasets(manifest: Manifest) -> list[DatasetInput]:
    """Describe the data that an artefact was made from as MLflow's column `Dataset` reads it."""
    lineage = manifest.lineage
    digest = str(lineage.get(TAG_DATASET_DIGEST, ""))
    if not digest:
        return []
    made_of = {name: str(lineage[name]) for name in sorted(lineage) if name.endswith("_digest") or name in _INSTANTS}
    source = {"uri": f"duet://snapshot/{digest}", **made_of}
    data = Dataset("people and interactions", digest[:_MAX_DATASET_DIGEST], "local", json.dumps(source))
    return [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])]


def _run_name(given: str | None, kind: ArtifactKind, version: int, candidate: str | None) -> str:
    return given or (f"{candidate} {kind.value}" if candidate else f"{kind.value} {version}")


def _link_tags(tags: Mapping[str, str] | None, dagster_run_id: str | None, dagster_url: str | None) -> dict[str, str]:
    links = {"dagster_run_id": dagster_run_id, "dagster_url": dagster_url}
    return {**(tags or {}), **{name: value for name, value in links.items() if value}}


def _description(manifest: Manifest, metrics: Mapping[str, float], dagster_url: str | None) -> str:
    rows = [f"| {_metric_name(name)} | {value:.4g} |" for name, value in list(metrics.items())[:20]]
    table = ["| metric | value |", "|---|---|", *rows] if rows else ["No metrics were logged."]
    link = [f"[Dagster run]({dagster_url})"] if dagster_url else []
    return "\n\n".join([f"{manifest.kind.value} `{manifest.digest[:12]}`", "\n".join(table), *link])


def _metric_name(name: str) -> str:
    return name.replace("@", "_at_")


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _plain(name: str, suffix: str) -> str:
    bare = Path(name).name
    return bare if "." in bare else bare + suffix


__all__: list[Any] = ["MlflowStore"]
