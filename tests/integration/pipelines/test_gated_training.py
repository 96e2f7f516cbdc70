"""Every candidate that a training makes is judged; a bad one is registered with its failure, and held back."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import httpx
import pytest

from infra.endpoints import Endpoints
from pipelines.errors import InvalidSetting
from pipelines.release.policy import load_policy
from pipelines.resources import Platform
from pipelines.runs.running import Listener, RunStory, open_instance, run_job
from registry.contracts import MODEL_NAMES, PRODUCTION, STAGING, ArtifactKind, ReleaseVersions
from registry.errors import GatesNotPassed
from registry.promotion.audit import PostgresPromotionLog
from registry.promotion.gates import GateReport, read_report, write_report
from registry.promotion.promotion import promote, rollback
from tests.releases import gate_report, write_release
from tests.trainings import small_world, train

pytestmark = [
    pytest.mark.timeout(600),
    # Libraries' own deprecations inside a whole training are not ours to mend.
    pytest.mark.filterwarnings("default"),
]


# The gates that come with Duet ask for more decisions than 150 people make.
GATES = """
sampling: {held_out_people: 50, replayed_people: 30, timed_people: 10}
gates:
  - {name: canaries, meaning: It works here., metric: canary_agreement, direction: higher, threshold: 0.99}
  - name: stable
    meaning: People keep their chances.
    metric: prediction_drift_psi
    direction: lower
    threshold: 0.5
  - {name: finds, meaning: It finds., metric: index_recall, direction: higher, threshold: 0.9, tolerance: {absolute: 0}}
  - {name: fair, meaning: Many are shown., metric: shown_share, direction: higher, threshold: 1, needs: {people: 1000}}
"""


@pytest.fixture(scope="module")
def platform(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    for name in MODEL_NAMES.values():
        url = f"{mlflow_endpoints.mlflow_url}/api/2.0/mlflow/registered-models/delete"
        httpx.request("DELETE", url, json={"name": name}, timeout=30)
    folder = tmp_path_factory.mktemp("gated")
    (folder / "gates.yaml").write_text(GATES)
    with small_world(mlflow_endpoints, folder / "duet", gates={"file": folder / "gates.yaml"}) as made:
        yield made


@pytest.fixture(scope="module")
def trained(platform: Platform) -> RunStory:
    return train(platform)


def report_of(platform: Platform) -> GateReport:
    report = read_report(platform.registry, candidate(platform))
    assert report is not None
    return report


def candidate(platform: Platform) -> ReleaseVersions:
    return ReleaseVersions.parse(str(platform.results.require("release_candidate").facts["release"]))


def page_of(platform: Platform, asset: str) -> Mapping[str, Any]:
    """Return what the asset's page in Dagster shows of its newest result."""
    with open_instance(platform) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata


def checks_of(platform: Platform, story: RunStory) -> dict[str, Any]:
    with open_instance(platform) as instance:
        logs = instance.all_logs(story.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.dagster_event.asset_check_evaluation_data for entry in logs if entry.dagster_event]
    return {check.check_name: check for check in found if check.asset_key == dg.AssetKey("release_candidate")}


def test_every_gate_is_a_check_of_the_candidate_and_a_first_release_passes(
    platform: Platform, trained: RunStory
) -> None:
    checks = checks_of(platform, trained)
    assert list(checks) == ["canaries", "stable", "finds", "fair"]
    assert all(check.passed and not check.blocking for check in checks.values())
    assert {check.severity for check in checks.values()} == {dg.AssetCheckSeverity.ERROR}
    finds = {name: value.value for name, value in checks["finds"].metadata.items()}
    assert (finds["value"], finds["threshold"], finds["tolerance"]) == (1.0, ">= 0.9", "0")
    assert checks["finds"].description == "`index_recall` is 1, at least 0.9."
    assert checks["fair"].description == "Not applicable: 149 people, needs 1000."
    assert "nothing stands in Production" in str(checks["stable"].description)
    assert report_of(platform).policy == load_policy(platform.settings.gates.file).digest


def test_a_bad_candidate_is_registered_with_its_failure_and_promoted_only_by_force(
    platform: Platform, trained: RunStory
) -> None:
    good = platform.registry.release_candidate()
    with platform.connection() as connection:
        log = PostgresPromotionLog(connection)
        promote(platform.registry, log, good, actor="ada", way="cli", feature_schema=None)
        # Leaves of ten thousand decisions: no tree ever splits, and everybody gets the same probability.
        story = train(platform, "train_ranker", ranker={"min_child_weight": 10_000.0})
        bad, report = candidate(platform), report_of(platform)
        assert bad != good
        assert report.against == good.release_id
        assert [failure.name for failure in report.failures()] == ["stable"]
        assert not checks_of(platform, story)["stable"].passed
        page = page_of(platform, "ranker")
        assert page["compared_with"].value == f"ranker {good.ranker}"
        changed = {record.data["what"]: record.data for record in page["differences"].value.records}
        assert changed["min_child_weight"]["this"] == "10000.0"
        assert "validation_auc" in [record.data["metric"] for record in page["comparison"].value.records]
        whole = page_of(platform, "release_candidate")
        assert str(whole["compared_with"].value).startswith(f"embedding {good.embedding} (this one), index")
        assert str(whole["plot: gate headroom"].value).startswith("![gate_headroom](data:image/png;base64,")
        assert "--force --reason" in str(whole["promote_with"].value)
        described = platform.registry.version(ArtifactKind.RANKER, bad.ranker).description
        assert "* **stable**: `prediction_drift_psi` is " in described
        assert platform.registry.release_candidate() == bad, "it is registered like any other"
        with pytest.raises(GatesNotPassed, match=r"stable: `prediction_drift_psi` is [\d.]+, above 0\.5"):
            promote(platform.registry, log, bad, actor="ada", way="cli", feature_schema=None, stage=STAGING)
        assert platform.registry.resolve_stage(PRODUCTION) == good
        promote(
            platform.registry,
            log,
            bad,
            actor="ada",
            way="cli",
            feature_schema=None,
            force=True,
            reason="a drill",
        )
        assert platform.registry.resolve_stage(PRODUCTION) == bad
        entry = log.history(PRODUCTION)[-1]
        assert (entry.reason, entry.gates["forced"], entry.gates["verdict"]) == ("a drill", True, report.verdict)
        assert list(entry.gates["failures"]) == ["stable"]
        assert rollback(platform.registry, log, actor="ada", way="cli", feature_schema=None) == good


def test_any_release_can_be_judged_again(platform: Platform, trained: RunStory) -> None:
    versions = platform.registry.release_candidate()
    write_report(platform.registry, gate_report(versions, passed=False))
    story = run_job(platform, "judge_release", {"judge": {"release": versions.release_id}}, 1, Listener())
    assert list(story.steps) == ["judge"]
    again = read_report(platform.registry, versions)
    assert again is not None
    assert [result.name for result in again.results] == ["canaries", "stable", "finds", "fair"]
    with pytest.raises(InvalidSetting, match="release"):
        run_job(platform, "judge_release", {"judge": {"release": "the best"}}, 1, Listener())


def test_a_production_that_cannot_be_loaded_is_no_empty_production(platform: Platform, trained: RunStory) -> None:
    versions = candidate(platform)
    foreign = write_release(platform.settings.data_dir / "foreign", 3, schema="0" * 64)
    placed = ReleaseVersions.of({kind: platform.models.log_version(kind, path) for kind, path in foreign.items()})
    for kind in ArtifactKind:
        platform.registry.transition_stage(kind, placed[kind], PRODUCTION)
    run_job(platform, "judge_release", {"judge": {"release": versions.release_id}}, 1, Listener())
    report = read_report(platform.registry, versions)
    assert report is not None
    assert [failure.name for failure in report.failures()] == ["stable", "finds"]
    assert f"{placed.release_id} in Production cannot be loaded here: The ranker was trained on" in str(
        report.failures()
    )
    with platform.connection() as connection, pytest.raises(GatesNotPassed, match=r"without `--force` and `--reason`"):
        promote(
            platform.registry,
            PostgresPromotionLog(connection),
            versions,
            actor="ada",
            way="cli",
            feature_schema=None,
        )
