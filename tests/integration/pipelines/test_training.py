"""The whole training on a tiny world, with real Postgres, Redis, Feast, MLflow and Dagster."""

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from typer.testing import CliRunner

from feature_repo.transforms import profile_fingerprints
from infra.cli.app import build_app
from infra.endpoints import Endpoints
from pipelines.errors import InvalidSetting, RunFailed
from pipelines.ranking.own import Fit
from pipelines.release.errors import NothingToCompare
from pipelines.resources import Platform
from pipelines.runs.running import Listener, RunStory, open_instance, run_job
from registry.contracts import ArtifactKind, ReleaseVersions
from registry.measurements import Measure, last_measurements
from registry.mlflow.rest import MlflowRest
from registry.models.artifacts import read_manifest, verify_artifact
from registry.promotion.gates import read_report
from serving.snapshots.population_source import load
from tests.architecture.sources import ROOT
from tests.object_store import bucket
from tests.trainings import NOW, PEOPLE, digests, small_world, train, versions

pytestmark = [
    pytest.mark.timeout(600),
    # Libraries' own deprecations inside a whole training are not ours to mend.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def platform(mlflow_endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose results are shared in a bucket."""
    folder = tmp_path_factory.mktemp("training") / "duet"
    with bucket() as uri, small_world(mlflow_endpoints, folder, results_uri=f"{uri}/results") as made:
        yield made


@pytest.fixture
def _environment(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables with which a process of its own works on the same platform."""
    for name, value in platform.endpoints.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DUET_DATA_DIR", str(platform.settings.data_dir))
    monkeypatch.setenv("DUET_RESULTS_URI", str(platform.settings.results_uri))


@pytest.fixture(scope="module")
def trained(platform: Platform) -> RunStory:
    return train(platform)


def test_training_makes_a_coherent_release_candidate(platform: Platform, trained: RunStory) -> None:
    candidate = platform.results.require("release_candidate")
    with MlflowRest(platform.endpoints.mlflow_url or "") as rest:
        assert rest.release_candidate("latest").release_id == candidate.facts["release"]
        tags = rest.version(ArtifactKind.INDEX, rest.release_candidate("latest").index).tags
    assert tags["embedding_digest"] == platform.results.require("embeddings").digest
    assert len(trained.steps) == 10


def test_the_instant_of_old_data_is_just_after_their_end(platform: Platform, trained: RunStory) -> None:
    pointer = platform.results.require("interactions")
    assert (pointer.as_of - datetime.fromisoformat(str(pointer.facts["newest_at"]))).total_seconds() == 1
    assert pointer.t0 is not None
    assert pointer.t1 is not None
    assert pointer.t0 < pointer.t1 < pointer.as_of


def test_the_run_shows_in_dagster_with_tables_plots_and_links(platform: Platform, trained: RunStory) -> None:
    with open_instance(platform) as instance:
        run = instance.get_run_by_id(trained.run_id)
        assert run is not None
        assert run.is_success
        event = instance.get_latest_materialization_event(dg.AssetKey("ranker"))
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        said = [entry.user_message for entry in instance.all_logs(trained.run_id)]
    assert any(line.startswith("iteration 1 of ") for line in said), "least squares tell how they get on"
    assert any(line.startswith("likes: round 1 of at most 30: log loss ") for line in said), "and so do the trees"
    assert isinstance(metadata["importance"], dg.TableMetadataValue)
    assert re.search(r"/#/models/duet-ranker/versions/\d+\?workflowType=", str(metadata["mlflow"].value))
    shown = [name for name in metadata if name.startswith("plot: ")]
    assert {"plot: training curve", "plot: feature importance", "plot: calibration"} <= set(shown)
    assert [*metadata][: len(shown) + 1] == [*shown, "compared_with"], "what a person looks at stands above the rest"
    assert str(metadata[shown[0]].value).startswith("![training_curve](data:image/png;base64,")


def test_the_evaluation_asks_the_oracle_of_a_generated_world(platform: Platform, trained: RunStory) -> None:
    table = (platform.results.require("evaluation").path / "table.csv").read_text()
    assert "oracle,true_match_precision_at_10" in table
    assert "two_stage,ndcg_at_10" in table


@pytest.mark.usefixtures("_environment")
def test_two_releases_are_compared_on_the_likes_since_both_have_learned(platform: Platform, trained: RunStory) -> None:
    release, t1 = (
        str(platform.results.require("release_candidate").facts["release"]),
        platform.results.require("ranker").t1,
    )
    compare = ["experiment", "interleave", release, release]
    with pytest.raises(NothingToCompare, match="Nobody liked anybody new"):
        CliRunner().invoke(build_app(), compare, catch_exceptions=False)
    assert t1 is not None
    shown = CliRunner().invoke(build_app(), [*compare, "--after", f"{t1:%Y-%m-%d %H:%M:%S}"], catch_exceptions=False)
    assert "people who liked somebody after" in shown.output
    assert " lists to " in shown.output
    assert "which favours it" in " ".join(shown.output.split())


def test_the_same_inputs_give_the_same_digests_and_no_new_versions(platform: Platform, trained: RunStory) -> None:
    before, registered = digests(platform), versions(platform)
    kept = {name: platform.results.require(name).path for name in before}
    # Without the files of the first run, nothing can be taken over from it by accident.
    shared = platform.results.shared
    assert shared is not None
    for name, path in kept.items():
        shutil.rmtree(path)
        shared.remove(name, path.name)
    train(platform)
    assert digests(platform) == before
    assert versions(platform) == registered


def test_a_new_ranker_alone_builds_on_the_last_good_embeddings(platform: Platform, trained: RunStory) -> None:
    embedding, registered = platform.results.require("embeddings"), versions(platform)
    train(platform, "train_ranker", ranker={"rounds": 10, "max_depth": 2})
    after = versions(platform)
    assert platform.results.require("embeddings") == embedding
    assert after["embedding"] == registered["embedding"]
    assert len(after["ranker"]) == len(registered["ranker"]) + 1
    assert str(platform.results.require("release_candidate").facts["release"]).endswith(f"r{after['ranker'][0]}")


def test_another_machine_trains_on_what_the_first_one_made(
    platform: Platform, trained: RunStory, tmp_path: Path
) -> None:
    embedding, registered = platform.results.require("embeddings"), versions(platform)
    settings = platform.settings.model_copy(update={"data_dir": tmp_path})
    with closing(Platform(settings, platform.endpoints, platform.clock)) as other:
        train(other, "train_ranker", ranker={"rounds": 10, "max_depth": 1})
        ranker, candidate = other.results.require("ranker"), other.results.require("release_candidate")
        assert other.results.root.is_relative_to(tmp_path)
        assert ranker.path.is_relative_to(tmp_path)
    assert ranker.inputs["embeddings"] == embedding.digest
    assert versions(platform)["embedding"] == registered["embedding"]
    assert versions(platform)["ranker"] == [ranker.version, *registered["ranker"]]
    # And the first machine goes on from there.
    assert platform.results.require("release_candidate").facts["release"] == candidate.facts["release"]
    verify_artifact(platform.results.require("ranker").path, ranker.digest)


def test_a_newcomer_enters_the_rebuilt_index_of_the_same_embedding(platform: Platform, trained: RunStory) -> None:
    from registry.models.item_index import ItemIndex

    newcomer = PEOPLE + 1_000
    embedding = platform.results.require("embeddings").digest
    fitted = platform.results.require("embeddings").version
    with platform.connection() as connection:
        connection.execute(
            "insert into duet.users (user_id, birth_date, gender, seeking, created_at, interests, latitude, longitude) "
            "values (%s, '1995-05-05', 'woman', '{man}', %s, '{chess,jazz}', 51.05, 3.72)",
            (newcomer, NOW),
        )
    train(platform, "rebuild_index")
    built = platform.results.require("candidate_index")
    assert built.inputs["embeddings"] == embedding
    index = ItemIndex.load(built.path)
    assert newcomer in index.user_ids
    verify_artifact(built.path, built.digest)
    assert read_manifest(built.path).lineage["embedding_digest"] == embedding
    assert platform.results.require("embeddings").version == fitted, "a rebuild never fits"
    assert index.fingerprints is not None
    with platform.connection() as connection:
        served = load(connection, None).population
        now = profile_fingerprints(served.rows(served.positions(index.user_ids)))
        # Serving sees the same profile, to the last bit: nobody counts as changed who was not.
        from_profile = index.fingerprints != 0
        assert index.user_ids[from_profile].tolist()[-1] == newcomer
        assert now[from_profile].tolist() == index.fingerprints[from_profile].tolist()
        connection.execute("delete from duet.users where user_id = %s", (newcomer,))


def test_a_bad_value_is_refused_before_anything_is_recorded(platform: Platform) -> None:
    with open_instance(platform) as instance:
        before = instance.get_runs_count()
    with pytest.raises(InvalidSetting, match="`max_depth` = 99: Input should be less than or equal to 16"):
        train(platform, ranker={"max_depth": 99})
    with pytest.raises(InvalidSetting, match="has no step `rankers`"):
        run_job(platform, "train_all", {"rankers": {"max_depth": 9}}, 1, Listener())
    with open_instance(platform) as instance:
        assert instance.get_runs_count() == before


def test_a_failing_expectation_stops_everything_after_it_and_shows_the_rows(
    platform: Platform, trained: RunStory
) -> None:
    accepted, registered = platform.results.require("people"), versions(platform)
    with platform.connection() as connection:
        connection.execute("update duet.users set birth_date = '1850-01-01' where user_id = 7")
    try:
        with pytest.raises(RunFailed, match=r"step `snapshots` of `train_all` failed: .*age_years.*1 of 15[01] rows"):
            train(platform)
    finally:
        with platform.connection() as connection:
            connection.execute("update duet.users set birth_date = '1990-01-01' where user_id = 7")
    assert platform.results.require("people") == accepted
    assert versions(platform) == registered
    with open_instance(platform) as instance:
        run = instance.get_runs(limit=1)[0]
        logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [entry.dagster_event.asset_check_evaluation_data for entry in logs if entry.dagster_event]
    failed = next(check for check in found if check.check_name == "people_expectations")
    rows = failed.metadata["failed"].value
    assert rows.records[0].data["column"] == "age_years"
    assert '"user_id": "7"' in str(rows.records[0].data["samples"])
    assert Path(str(failed.metadata["data_docs"].value)).is_file()


def test_a_step_alone_says_what_is_missing(platform: Platform, tmp_path: Path) -> None:
    elsewhere = platform.settings.model_copy(update={"data_dir": tmp_path, "results_uri": None})
    empty = Platform(elsewhere, platform.endpoints, platform.clock)
    with pytest.raises(RunFailed, match=r"no `embeddings` was made under .* run the job `train_all` first"):
        train(empty, "train_ranker")


def test_features_written_late_still_reach_the_online_store(platform: Platform, trained: RunStory) -> None:
    from feature_repo.layout import ACTIVITY
    from feature_repo.store import open_feature_store, read_people

    at = platform.results.require("interactions").as_of
    with platform.connection() as connection:
        # Older than what was materialised: the end of the data lies five months before the clock.
        connection.execute(
            "insert into duet.users (user_id, gender, created_at) values (%s, 'woman', %s)", (PEOPLE + 1, at)
        )
    try:
        train(platform, "materialize_features")
        people = read_people(open_feature_store(platform.settings, platform.endpoints), [1, PEOPLE + 1])
        assert people.user_ids.tolist() == [1, PEOPLE + 1]
        assert people.activity[0, ACTIVITY.index("decisions_sent")] > 0
    finally:
        with platform.connection() as connection:
            connection.execute("delete from duet.users where user_id = %s", (PEOPLE + 1,))


def test_a_search_logs_a_run_with_one_child_per_trial_and_goes_on(platform: Platform, trained: RunStory) -> None:
    import httpx

    def children(parent: str) -> list[dict[str, Any]]:
        body = {"experiment_ids": [experiment], "filter": f"tags.`mlflow.parentRunId` = '{parent}'"}
        found = httpx.post(f"{platform.endpoints.mlflow_url}/api/2.0/mlflow/runs/search", json=body, timeout=30)
        runs: list[dict[str, Any]] = found.raise_for_status().json().get("runs", [])
        return runs

    for stage, trials, new in (("ranker", 3, 3), ("ranker", 4, 1), ("embeddings", 1, 1)):
        chosen = {"hyperparameter_search": {"stage": stage, "trials": trials, "threads": 1}}
        story = run_job(platform, "search_hyperparameters", chosen, 1, Listener())
        found = platform.results.require("hyperparameter_search")
        assert found.facts["trials"] == trials
        assert str(found.facts["train_with"]).startswith("duet train --job train_")
        with open_instance(platform) as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey("hyperparameter_search"))
            assert event is not None
            assert event.run_id == story.run_id
            assert event.asset_materialization is not None
            metadata = event.asset_materialization.metadata
        assert str(metadata["plot: search history"].value).startswith("![search_history](data:image/png;base64,")
        experiment, parent = str(metadata["mlflow"].value).partition("?")[0].split("/experiments/")[1].split("/runs/")
        assert len(children(parent)) == new
    with pytest.raises(InvalidSetting, match="`trials` = 0"):
        run_job(platform, "search_hyperparameters", {"hyperparameter_search": {"trials": 0}}, 1, Listener())


def test_drift_is_measured_against_the_rows_of_the_ranker_in_production(platform: Platform, trained: RunStory) -> None:
    def told() -> dict[str, Any]:
        chosen = {"drift": {"days": 60, "min_rows": 50}}
        run_job(platform, "measure_drift", chosen, 1, Listener())
        with open_instance(platform) as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey("drift"))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    first = told()
    assert first["measured"] is False
    assert "No model is in stage Production" in str(first["why"])
    release = ReleaseVersions.parse(str(platform.results.require("release_candidate").facts["release"]))
    with MlflowRest(platform.endpoints.mlflow_url or "") as rest:
        try:
            for kind in ArtifactKind:
                rest.transition_stage(kind, release[kind], "Production")
            found = told()
        finally:
            for kind in ArtifactKind:
                rest.transition_stage(kind, release[kind], "None", archive_existing=False)
    assert found["measured"] is True
    assert found["release"] == release.release_id
    assert found["worst_psi"] >= 0
    with platform.connection() as connection:
        kept = last_measurements(connection)[Measure.DRIFT_PSI]
    assert (kept.value, kept.about) == (found["worst_psi"], release.release_id)
    assert found["rows_now"] >= 50
    assert 0 < found["like_rate_now"] < 1
    assert str(found["plot: drift"]).startswith("![drift](data:image/png;base64,")


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("library", ["sklearn", "lightgbm"])
def test_a_ranker_that_the_readme_trains_is_judged_promoted_and_loaded_as_serving_does(
    platform: Platform, trained: RunStory, library: str
) -> None:
    from feature_repo.layout import RANKING_FEATURES
    from feature_repo.schema import offered_schema
    from pipelines.ranking.config import RankerConfig
    from pipelines.ranking.frame import ranking_frame
    from pipelines.ranking.own import register_ranker
    from pipelines.release.judging import loaded
    from registry.contracts import PRODUCTION
    from registry.promotion.audit import PostgresPromotionLog
    from registry.promotion.promotion import promote

    pytest.importorskip(library, reason=f"{library} is not installed")
    names, fit = list(RANKING_FEATURES), fit_of_the_readme(library)
    frame = ranking_frame(platform.settings.data_dir)
    assert set(frame["window"]) == {"early", "late"}
    assert len(frame) == platform.results.require("ranking_dataset").facts["rows"]
    report = register_ranker(platform, fit, config=RankerConfig(judged_people=40))
    assert report.passed, report.failures()
    release = platform.registry.release_candidate(report.release)
    try:
        with platform.connection() as connection:
            log = PostgresPromotionLog(connection)
            promote(platform.registry, log, release, actor="ada", way="cli", feature_schema=offered_schema())
        served = loaded(platform, platform.registry.resolve_stage(PRODUCTION))
        x = frame[names].to_numpy(np.float32)
        np.testing.assert_allclose(served.ranker.predict(x), fit(frame).offered(names).predict(x), atol=1e-6)
    finally:
        for kind in ArtifactKind:
            platform.registry.transition_stage(kind, release[kind], "None", archive_existing=False)


def fit_of_the_readme(library: str) -> Fit:
    """Return `fit` of the README's section about rankers of one's own that is written with a library."""
    section = (ROOT / "README.md").read_text().partition("### A ranker of your own")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (block,) = [block for block in blocks if library in block]
    named: dict[str, Any] = {}
    exec(block.partition("\nwith opened_platform")[0], named)  # noqa: S102 our own README
    fit: Fit = named["fit"]
    return fit


@pytest.mark.long
def test_only_decisions_of_the_chosen_window_are_learned_from(platform: Platform, trained: RunStory) -> None:
    from pipelines.results.inputs import before_window
    from registry.models.artifacts import read_manifest
    from registry.models.embedding import Embedding

    whole, first = platform.results.require("embeddings"), platform.results.require("interactions")
    assert first.t0 is not None
    since = first.t0 - timedelta(days=20)
    train(platform, snapshots={"since": since.isoformat(), "as_of": first.as_of.isoformat()})
    narrow, later = platform.results.require("embeddings"), platform.results.require("interactions")
    assert before_window(read_manifest(narrow.path).lineage) == round(since.timestamp() * 1e6) - 1
    assert later.digest == first.digest  # features still count everything
    assert later.t0 is not None
    assert later.t0 > since
    decided = platform.snapshot(later).events.between(before_window(later.facts), round(later.as_of.timestamp() * 1e6))
    assert narrow.digest != whole.digest
    assert len(Embedding.load(narrow.path)) <= np.union1d(decided.actor, decided.target).size
    assert platform.results.require("release_candidate").run_id == narrow.run_id


def test_likes_without_a_pass_train_a_candidate_that_skips_what_nobody_can_measure(
    platform: Platform, trained: RunStory
) -> None:
    with platform.connection() as connection:
        connection.execute("delete from duet.interactions where kind = 'pass'")
    train(platform, snapshots={"max_volume_drop": 1.0, "max_like_rate_drift": 1.0})
    candidate = ReleaseVersions.parse(str(platform.results.require("release_candidate").facts["release"]))
    report = read_report(platform.registry, candidate)
    assert report is not None
    assert report.passed, report.failures()
    measured = {result.metric: result.value for result in report.results}
    assert (measured["held_out_auc"], measured["calibration_error"]) == (None, None), "nobody said no"
    assert measured["gain_over_popularity"] is not None
    table = (platform.results.require("evaluation").path / "table.csv").read_text()
    assert "two_stage,ndcg_at_20" in table
