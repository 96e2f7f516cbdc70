"""The one Dagster code location: assets, checks, jobs, schedules and sensors of all domains, and nothing else.

Each domain adds what it has by a line of its own; nothing is defined here.
"""

import dagster as dg

from infra.clock import SystemClock
from infra.settings import load_settings
from pipelines.evaluation.assets import evaluation
from pipelines.evaluation.jobs import EVALUATE
from pipelines.evaluation.search.assets import hyperparameter_search
from pipelines.evaluation.search.jobs import SEARCH
from pipelines.experiments.assets import experiment_report
from pipelines.experiments.jobs import READ_OUT
from pipelines.experiments.sensors import guard
from pipelines.features.assets import changed_features, features, online_features
from pipelines.features.jobs import MATERIALIZE_CHANGES, MATERIALIZE_FEATURES
from pipelines.features.schedules import nightly_materialize_features
from pipelines.features.sensors import frequent_materialize_features
from pipelines.ingest.assets import snapshots
from pipelines.io_manager import result_io_manager
from pipelines.ranking.assets import ranker, ranking_dataset
from pipelines.ranking.jobs import TRAIN_RANKER
from pipelines.release.assets import RELEASE_HISTORY, promoted_release, release_candidate_asset
from pipelines.release.checks import production_is_coherent
from pipelines.release.jobs import TRAIN_ALL, judge_job
from pipelines.release.policy import load_policy
from pipelines.release.schedules import weekly_retrain
from pipelines.release.sensors import observe_stages
from pipelines.resources import Platform, PlatformResource
from pipelines.retrieval.assets import candidate_index, embeddings
from pipelines.retrieval.jobs import REBUILD_INDEX
from pipelines.retrieval.schedules import nightly_rebuild_index
from pipelines.runs.executor import in_process_or_multiprocess
from pipelines.runs.freshness import kept_fresh
from pipelines.runs.launchpad import checked_assets
from pipelines.upkeep.assets import daily_activity_asset, daily_totals
from pipelines.upkeep.drift.assets import drift
from pipelines.upkeep.drift.jobs import MEASURE_DRIFT
from pipelines.upkeep.drift.schedules import nightly_measure_drift
from pipelines.upkeep.drift.sensors import retrain_on_drift
from pipelines.upkeep.erasure.assets import erasures
from pipelines.upkeep.erasure.jobs import ERASE_PEOPLE
from pipelines.upkeep.erasure.sensors import erase_people_soon
from pipelines.upkeep.first_day import first_day
from pipelines.upkeep.jobs import FOLD_HISTORY, MEASURE_ACTIVITY
from pipelines.upkeep.schedules import daily_measure_activity, nightly_fold_history
from pipelines.upkeep.sensors import alert_on_failure

ASSETS = (
    *(snapshots, features, online_features, changed_features, embeddings, candidate_index, ranking_dataset, ranker),
    *(evaluation, promoted_release, drift, experiment_report, hyperparameter_search, daily_totals, erasures),
)
JOBS = (
    *(TRAIN_ALL, TRAIN_RANKER, REBUILD_INDEX, MATERIALIZE_FEATURES, MATERIALIZE_CHANGES, EVALUATE, SEARCH),
    *(MEASURE_ACTIVITY, FOLD_HISTORY, MEASURE_DRIFT, READ_OUT, ERASE_PEOPLE),
)
SCHEDULES = (
    *(daily_measure_activity, nightly_materialize_features, nightly_rebuild_index, nightly_fold_history),
    *(nightly_measure_drift, weekly_retrain),
)
SENSORS = (alert_on_failure, frequent_materialize_features, retrain_on_drift, guard, observe_stages, erase_people_soon)


def build_definitions(platform: Platform | None = None) -> dg.Definitions:
    """Merge all domains; `platform` replaces the one that each run otherwise builds from its settings."""
    settings = platform.settings if platform else load_settings()
    policy = load_policy(settings.gates.file)
    begins = (
        first_day(settings, platform.clock, platform.database_url) if platform else first_day(settings, SystemClock())
    )
    assets = checked_assets([*ASSETS, release_candidate_asset(policy), daily_activity_asset(begins)])
    return dg.Definitions(
        assets=[RELEASE_HISTORY, *kept_fresh(assets)],
        asset_checks=[production_is_coherent],
        jobs=[*JOBS, judge_job(policy)],
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={"platform": platform or PlatformResource(), "io_manager": result_io_manager},
        executor=in_process_or_multiprocess,
    )


defs = build_definitions()
