"""Every model registry obeys the same suite: the in-memory one of the tests, and MLflow over REST on a real server.

MLflow's is held to it twice: with stages, and by aliases alone on a server that has no stages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from infra.endpoints import Endpoints
from registry.contracts import ARCHIVED, NO_STAGE, PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import CorruptArtifact, IncoherentRelease, RegistryUnavailable, UnknownVersion
from registry.models.artifacts import verify_artifact
from registry.promotion.gates import KEPT_REPORTS, read_report, write_report
from registry.promotion.moves import sync_aliases
from registry.store import ModelRegistry
from tests.fakes import MemoryRegistry
from tests.releases import digest_of, gate_report, write_release

EMBEDDING, INDEX, RANKER = ArtifactKind


@dataclass
class Subject:
    """A registry and the way a version gets into it."""

    registry: ModelRegistry
    register: Callable[[ArtifactKind, Path, str | None], int]
    has_stages: bool = True

    def register_release(self, paths: dict[ArtifactKind, Path], candidate: str | None = None) -> ReleaseVersions:
        return ReleaseVersions.of({kind: self.register(kind, path, candidate) for kind, path in paths.items()})


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[dict[ArtifactKind, Path]]:
    root = tmp_path_factory.mktemp("releases")
    return [write_release(root, seed) for seed in range(3)]


class WithoutStages(httpx.HTTPTransport):
    """The way to an MLflow server whose stages are gone."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        gone = request.url.path.endswith(("transition-stage", "get-latest-versions")) or b"stages=" in request.url.query
        return httpx.Response(404) if gone else super().handle_request(request)


ABOUT_STAGES = pytest.mark.parametrize(
    "subject", ["memory", "mlflow", pytest.param("mlflow by aliases", marks=pytest.mark.long)], indirect=True
)


@pytest.fixture(params=["memory", "mlflow"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        memory = MemoryRegistry()
        yield Subject(memory, lambda kind, path, candidate: memory.register(kind, path, release_candidate=candidate))
        return
    from registry.mlflow.aliases import MlflowAliases
    from registry.mlflow.logged import MlflowStore
    from registry.mlflow.rest import MlflowRest

    mlflow_endpoints: Endpoints = request.getfixturevalue("mlflow_endpoints")
    assert mlflow_endpoints.mlflow_url
    request.getfixturevalue("empty_mlflow")
    store = MlflowStore(mlflow_endpoints.mlflow_url, "contract")
    has_stages = request.param == "mlflow"
    with (
        MlflowRest(mlflow_endpoints.mlflow_url)
        if has_stages
        else MlflowAliases(mlflow_endpoints.mlflow_url, transport=WithoutStages())
    ) as rest:
        yield Subject(
            rest,
            lambda kind, path, candidate: store.log_version(kind, path, release_candidate=candidate),
            has_stages=has_stages,
        )


@ABOUT_STAGES
def test_a_registry_without_models_is_empty_not_broken(subject: Subject) -> None:
    assert subject.registry.versions(RANKER) == []
    assert subject.registry.in_stage(PRODUCTION) == {}
    assert subject.registry.aliases(RANKER) == {}
    with pytest.raises(UnknownVersion):
        subject.registry.version(RANKER, 1)
    with pytest.raises(IncoherentRelease, match="No model is in stage Production"):
        subject.registry.resolve_stage(PRODUCTION)
    with pytest.raises(IncoherentRelease, match=r"No model is in stage Staging: .*`duet promote --staging`"):
        subject.registry.resolve_stage(STAGING)
    with pytest.raises(UnknownVersion, match="no complete release candidate"):
        subject.registry.release_candidate()


def test_of_several_versions_in_one_stage_it_says_which_one_counts(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    for paths in releases:
        subject.register_release(paths)
    subject.registry.transition_stage(RANKER, 3, PRODUCTION)
    subject.registry.transition_stage(INDEX, 2, STAGING)
    assert subject.registry.crowding() == []
    subject.registry.transition_stage(RANKER, 1, PRODUCTION, archive_existing=False)
    (told,) = subject.registry.crowding()
    assert told.startswith("duet-ranker has versions 3 and 1 in Production, and the newest, 3, counts")
    assert subject.registry.in_stage(PRODUCTION)[RANKER].version == 3
    subject.registry.transition_stage(RANKER, 2, PRODUCTION, archive_existing=False)
    subject.registry.transition_stage(INDEX, 3, STAGING, archive_existing=False)
    assert [told.partition(",")[0] for told in subject.registry.crowding()] == [
        "duet-index has versions 3 and 2 in Staging",
        "duet-ranker has versions 3",
    ]
    assert "versions 3, 2 and 1 in Production" in subject.registry.crowding()[1]


def test_a_registered_version_can_be_read_back(
    subject: Subject, releases: list[dict[ArtifactKind, Path]], tmp_path: Path
) -> None:
    versions = subject.register_release(releases[0], "rc-0")
    assert versions == ReleaseVersions(1, 1, 1)
    for kind, path in releases[0].items():
        found = subject.registry.version(kind, 1)
        assert (found.kind, found.version, found.stage, found.digest) == (kind, 1, NO_STAGE, digest_of(path))
        assert found.tags["release_candidate"] == "rc-0"
        assert found.created_at is not None
        assert found.created_at.tzinfo is not None
        manifest = subject.registry.download(kind, 1, tmp_path / kind)
        assert manifest == verify_artifact(path)
        assert {file.name for file in (tmp_path / kind).iterdir()} == {*manifest.files, "manifest.json"}
    assert subject.registry.version(INDEX, 1).tags["embedding_digest"] == digest_of(releases[0][EMBEDDING])
    assert subject.registry.version(RANKER, 1).tags["feature_schema"]


def test_the_same_artefact_is_registered_once(subject: Subject, releases: list[dict[ArtifactKind, Path]]) -> None:
    first = subject.register_release(releases[0], "rc-0")
    assert subject.register_release(releases[0], "rc-1") == first
    assert len(subject.registry.versions(EMBEDDING)) == 1
    assert subject.registry.release_candidate("rc-0") == subject.registry.release_candidate("rc-1") == first


def test_versions_are_listed_newest_first(subject: Subject, releases: list[dict[ArtifactKind, Path]]) -> None:
    for paths in releases:
        subject.register_release(paths)
    assert [version.version for version in subject.registry.versions(RANKER)] == [3, 2, 1]


def test_a_download_is_repeatable_and_a_damaged_copy_refused(
    subject: Subject, releases: list[dict[ArtifactKind, Path]], tmp_path: Path
) -> None:
    subject.register_release(releases[0])
    first = subject.registry.download(RANKER, 1, tmp_path / "copy")
    assert subject.registry.download(RANKER, 1, tmp_path / "copy") == first
    (tmp_path / "copy" / "model.ubj").write_bytes(b"")
    with pytest.raises(CorruptArtifact, match=r"model\.ubj"):
        subject.registry.download(RANKER, 1, tmp_path / "copy")
    with pytest.raises(UnknownVersion):
        subject.registry.download(RANKER, 99, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@ABOUT_STAGES
def test_moving_a_version_displaces_what_stood_there(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    registry = subject.registry
    for paths in releases[:2]:
        subject.register_release(paths)
    assert registry.transition_stage(RANKER, 1, PRODUCTION).stage == PRODUCTION
    registry.transition_stage(RANKER, 2, PRODUCTION)
    assert [version.stage for version in registry.versions(RANKER)] == [
        PRODUCTION,
        ARCHIVED if subject.has_stages else NO_STAGE,
    ]
    assert registry.in_stage(PRODUCTION)[RANKER].version == 2
    if subject.has_stages:
        registry.transition_stage(RANKER, 1, PRODUCTION, archive_existing=False)
        assert [version.version for version in registry.versions_in_stage(RANKER, PRODUCTION)] == [2, 1]
        assert registry.in_stage(PRODUCTION)[RANKER].version == 2, "the newest counts"
    with pytest.raises(UnknownVersion):
        registry.transition_stage(RANKER, 99, PRODUCTION)
    with pytest.raises(RegistryUnavailable):
        registry.transition_stage(RANKER, 1, "Nowhere")


@ABOUT_STAGES
def test_production_resolves_to_a_coherent_release_or_a_reason(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    registry = subject.registry
    subject.register_release(releases[0])
    subject.register_release(releases[1])
    registry.transition_stage(EMBEDDING, 1, PRODUCTION)
    with pytest.raises(IncoherentRelease, match="no index and no ranker"):
        registry.resolve_stage()
    registry.transition_stage(INDEX, 1, PRODUCTION)
    registry.transition_stage(RANKER, 2, PRODUCTION)
    assert registry.resolve_stage() == ReleaseVersions(1, 1, 2)
    registry.transition_stage(EMBEDDING, 2, PRODUCTION)
    with pytest.raises(IncoherentRelease, match="index 1 was built from embedding"):
        registry.resolve_stage()
    registry.transition_stage(INDEX, 2, PRODUCTION)
    assert registry.resolve_stage() == ReleaseVersions(2, 2, 2)
    with pytest.raises(IncoherentRelease, match="feature schema"):
        registry.resolve_stage(PRODUCTION, "f" * 64)


@ABOUT_STAGES
def test_a_challenger_shares_what_stands_in_production(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    registry = subject.registry
    subject.register_release(releases[0])
    subject.register_release(releases[1])
    for kind in ArtifactKind:
        registry.transition_stage(kind, 1, PRODUCTION)
    registry.transition_stage(RANKER, 2, STAGING)
    assert registry.resolve_stage(STAGING) == ReleaseVersions(1, 1, 2)


@ABOUT_STAGES
def test_a_version_stands_in_one_stage_and_leaves_it_for_another_or_for_none(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    registry = subject.registry
    for paths in releases[:2]:
        subject.register_release(paths)
    registry.transition_stage(RANKER, 1, PRODUCTION)
    registry.transition_stage(RANKER, 2, STAGING)
    assert (registry.version(RANKER, 1).stage, registry.version(RANKER, 2).stage) == (PRODUCTION, STAGING)
    registry.transition_stage(RANKER, 2, PRODUCTION)
    assert registry.in_stage(STAGING) == {}
    registry.transition_stage(RANKER, 2, STAGING)
    assert registry.in_stage(PRODUCTION) == {}
    registry.transition_stage(RANKER, 2, ARCHIVED, archive_existing=False)
    assert registry.in_stage(STAGING) == {}


def test_the_newest_complete_coherent_candidate_is_the_latest(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    subject.register_release(releases[0], "rc-0")
    subject.register_release({**releases[0], INDEX: releases[1][INDEX]}, "broken")
    subject.register(EMBEDDING, releases[2][EMBEDDING], "unfinished")
    assert subject.registry.release_candidate() == ReleaseVersions(1, 1, 1)
    for name in ("broken", "unfinished", "nobody"):
        with pytest.raises(UnknownVersion, match=f"`{name}`"):
            subject.registry.release_candidate(name)


@ABOUT_STAGES
def test_aliases_follow_the_stages(subject: Subject, releases: list[dict[ArtifactKind, Path]]) -> None:
    registry = subject.registry
    subject.register_release(releases[0])
    subject.register_release(releases[1])
    for kind in ArtifactKind:
        registry.transition_stage(kind, 1, PRODUCTION)
        registry.transition_stage(kind, 2, STAGING)
    sync_aliases(registry)
    assert registry.aliases(INDEX) == {"champion": 1, "challenger": 2}
    for kind in ArtifactKind:
        registry.transition_stage(kind, 2, PRODUCTION)
    sync_aliases(registry)
    assert registry.aliases(INDEX) == {"champion": 2}
    registry.delete_alias(INDEX, "nobody")


def test_tags_can_be_set(subject: Subject, releases: list[dict[ArtifactKind, Path]]) -> None:
    subject.register_release(releases[0])
    subject.registry.set_tag(RANKER, 1, "gate", "failed: recall")
    assert subject.registry.version(RANKER, 1).tags["gate"] == "failed: recall"
    with pytest.raises(UnknownVersion):
        subject.registry.set_tag(RANKER, 9, "gate", "x")


def test_a_version_can_be_described(subject: Subject, releases: list[dict[ArtifactKind, Path]]) -> None:
    subject.register_release(releases[0])
    subject.registry.describe(RANKER, 1, "### Gates\n\n**failed**: recall")
    assert subject.registry.version(RANKER, 1).description == "### Gates\n\n**failed**: recall"
    with pytest.raises(UnknownVersion):
        subject.registry.describe(RANKER, 9, "x")


def test_a_description_that_is_too_long_is_kept_as_far_as_it_fits(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    subject.register_release(releases[0])
    line = "| gate | passed | é |"
    subject.registry.describe(RANKER, 1, "\n".join([line] * 500))
    kept = subject.registry.version(RANKER, 1).description.splitlines()
    assert kept[:200] == [line] * 200


def test_a_report_of_the_gates_is_read_back_and_shows_on_every_version(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    registry = subject.registry
    versions = subject.register_release(releases[0])
    assert read_report(registry, versions) is None
    registry.describe(RANKER, 1, "A ranker.")
    report = gate_report(versions, passed=False)
    write_report(registry, report)
    assert read_report(registry, versions) == report
    for kind in ArtifactKind:
        assert "index recall 0.5 is below 0.9." in registry.version(kind, 1).description
    assert registry.version(RANKER, 1).tags["gates.e1-i1-r1"] == "failed: recall"
    better = gate_report(versions)
    write_report(registry, better)
    assert read_report(registry, versions) == better
    described = registry.version(RANKER, 1).description
    assert described.startswith("A ranker.")
    assert "0.5" not in described, "the latest report replaces the one before"
    with pytest.raises(UnknownVersion):
        write_report(registry, gate_report(ReleaseVersions(1, 1, 9)))


def test_an_index_shared_by_many_releases_keeps_the_newest_reports_and_the_verdict_of_all(
    subject: Subject, releases: list[dict[ArtifactKind, Path]]
) -> None:
    registry = subject.registry
    versions = subject.register_release(releases[0])
    for day in range(1, KEPT_REPORTS + 1):
        older = gate_report(ReleaseVersions(9, 1, day), passed=False, judged_at=datetime(2026, 5, day, tzinfo=UTC))
        registry.set_tag(INDEX, 1, f"gates.{older.release}", older.model_dump_json(exclude_none=True))
    write_report(registry, gate_report(versions))
    assert registry.version(INDEX, 1).tags["gates.e9-i1-r1"] == "failed: recall"
    assert read_report(registry, ReleaseVersions(9, 1, 1)) is None
    assert read_report(registry, ReleaseVersions(9, 1, 2)) is not None
    assert read_report(registry, versions) is not None
