"""What MLflow over REST refuses: absence, foreign answers, paths, changed bytes."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from registry.contracts import ArtifactKind
from registry.errors import CorruptArtifact, RegistryUnavailable, UnknownVersion
from registry.mlflow.rest import MlflowRest
from tests.releases import digest_of, make_ranker

RANKER = ArtifactKind.RANKER
Handler = Callable[[httpx.Request], httpx.Response]


def rest(handler: Handler) -> MlflowRest:
    return MlflowRest("http://mlflow.test/", transport=httpx.MockTransport(handler))


def answering(status: int, content: object) -> MlflowRest:
    text = content if isinstance(content, str) else json.dumps(content)
    return rest(lambda _: httpx.Response(status, text=text))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    make_ranker().save(tmp_path / "source", {"feature_schema": "f"})
    return tmp_path / "source"


def server(artifact: Path, source: str = "mlflow-artifacts:/1/run/artifacts/artifact") -> Handler:
    """An MLflow that holds one ranker and answers for the artefact store from a folder."""

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("model-versions/get"):
            tags = [{"key": "digest", "value": digest_of(artifact)}]
            return httpx.Response(200, json={"model_version": {"version": "1", "tags": tags}})
        if path.endswith("get-download-uri"):
            return httpx.Response(200, json={"artifact_uri": source})
        file = artifact / path.rpartition("/")[2]
        return httpx.Response(200, content=file.read_bytes()) if file.exists() else httpx.Response(404)

    return handle


def test_a_server_that_is_gone_is_named(tmp_path: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with rest(refuse) as registry:
        for call in (registry.check, lambda: registry.versions(RANKER), registry.resolve_stage):
            with pytest.raises(RegistryUnavailable, match=r"http://mlflow\.test does not answer \(ConnectError\)"):
                call()


def test_a_slow_server_is_given_up() -> None:
    def wait(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(RegistryUnavailable, match="ReadTimeout"):
        rest(wait).versions(RANKER)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, "oops"),
        (503, {}),
        (200, "<html>login</html>"),
        (200, [1, 2]),
        (302, ""),
        (403, {"error_code": "PERMISSION_DENIED", "message": "no"}),
        (200, {"model_versions": "many"}),
        (200, {"model_versions": [{"no": "version"}]}),
        (200, {"model_versions": [{"version": "one"}]}),
    ],
)
def test_a_foreign_answer_is_refused(status: int, content: object) -> None:
    with pytest.raises(RegistryUnavailable):
        answering(status, content).versions(RANKER)


def test_an_answer_without_a_version_is_refused() -> None:
    with pytest.raises(RegistryUnavailable, match="no `model_version`"):
        answering(200, {}).version(RANKER, 1)


def test_absence_is_told_from_failure() -> None:
    absent = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=duet-ranker not found"}
    with pytest.raises(UnknownVersion, match="not found"):
        answering(404, absent).version(RANKER, 1)
    assert answering(404, absent).in_stage("Production") == {}
    assert answering(404, absent).aliases(RANKER) == {}


def test_all_pages_are_read() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        first = "page_token" not in request.url.params
        rows = [{"version": "2" if first else "1"}]
        return httpx.Response(200, json={"model_versions": rows, **({"next_page_token": "x"} if first else {})})

    assert [version.version for version in rest(page).versions(RANKER)] == [2, 1]


def test_a_version_is_fetched_and_verified(artifact: Path, tmp_path: Path) -> None:
    manifest = rest(server(artifact)).download(RANKER, 1, tmp_path / "copy")
    assert manifest.digest == digest_of(tmp_path / "copy") == digest_of(artifact)


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd",
        "s3://bucket/path",
        "mlflow-artifacts:/1/../../etc",
        "mlflow-artifacts:/1/%2e%2e/x",
        "models:/duet-ranker/1",
        "",
    ],
)
def test_a_source_elsewhere_is_refused(artifact: Path, tmp_path: Path, source: str) -> None:
    with pytest.raises(CorruptArtifact, match="does not fetch from"):
        rest(server(artifact, source)).download(RANKER, 1, tmp_path / "copy")


@pytest.mark.parametrize("change", ["longer", "shorter", "flipped", "missing"])
def test_changed_bytes_never_get_a_name(artifact: Path, tmp_path: Path, change: str) -> None:
    model = artifact / "model.ubj"
    content = model.read_bytes()
    if change == "missing":
        model.unlink()
    else:
        changed = {"longer": content + b"x", "shorter": content[:-1], "flipped": bytes([content[0] ^ 1]) + content[1:]}
        model.write_bytes(changed[change])
    with pytest.raises(CorruptArtifact, match=r"model\.ubj"):
        rest(server(artifact)).download(RANKER, 1, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_manifest_that_is_none_or_another_is_refused(artifact: Path, tmp_path: Path) -> None:
    handler = server(artifact)

    def lie(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("model-versions/get"):
            tags = [{"key": "digest", "value": "0" * 64}]
            return httpx.Response(200, json={"model_version": {"version": "1", "tags": tags}})
        return handler(request)

    with pytest.raises(CorruptArtifact, match="its version's tag says 0000"):
        rest(lie).download(RANKER, 1, tmp_path / "copy")

    def rubbish(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("manifest.json"):
            return httpx.Response(200, text="{")
        return handler(request)

    with pytest.raises(CorruptArtifact, match="is not a manifest"):
        rest(rubbish).download(RANKER, 1, tmp_path / "copy")


def test_a_version_without_a_digest_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="no digest tag"):
        answering(200, {"model_version": {"version": "1"}}).download(RANKER, 1, tmp_path / "copy")


def test_an_artefact_store_that_fails_is_not_a_corrupt_artefact(artifact: Path, tmp_path: Path) -> None:
    handler = server(artifact)

    def fail(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500) if "mlflow-artifacts" in request.url.path else handler(request)

    with pytest.raises(RegistryUnavailable, match="answered 500"):
        rest(fail).download(RANKER, 1, tmp_path / "copy")
