"""The one Dagster code location: assets, checks, jobs, schedules and sensors of all domains, and nothing else.

Each domain adds what it has by a line of its own; nothing is defined here.
"""

import dagster as dg

from infra.clock import SystemClock
from infra.settings import load_settings
from pipelines.automation.freshness import kept_fresh
from pipelines.automation.schedules import SCHEDULES
from pipelines.automation.sensors import SENSORS
from pipelines.drift.assets import drift
from pipelines.evaluation.assets import evaluation
from pipelines.executor import in_process_or_multiprocess
from pipelines.experiments.assets import READ_OUT, experiment_report
from pipelines.experiments.sensors import guard
from pipelines.features.assets import features, online_features
from pipelines.features.changed import changed_features
from pipelines.history.assets import daily_activity_asset, daily_totals
from pipelines.history.first_day import first_day
from pipelines.ingest.assets import snapshots
from pipelines.io_manager import result_io_manager
from pipelines.jobs import JOBS
from pipelines.launchpad import checked_assets
from pipelines.ranking.assets import ranker, ranking_dataset
from pipelines.release.assets import release_candidate_asset
from pipelines.release.jobs import judge_job
from pipelines.release.policy import load_policy
from pipelines.release.promotion import promoted_release
from pipelines.release.sensors import RELEASE_HISTORY, observe_stages, production_is_coherent
from pipelines.resources import Platform, PlatformResource
from pipelines.retrieval.assets import candidate_index, embeddings
from pipelines.search.assets import hyperparameter_search


def build_definitions(platform: Platform | None = None) -> dg.Definitions:
    """Merge all domains; `platform` replaces the one that each run otherwise builds from its settings."""
    settings = platform.settings if platform else load_settings()
    policy = load_policy(settings.gates.file)
    begins = (
        first_day(settings, platform.clock, platform.database_url) if platform else first_day(settings, SystemClock())
    )
    return dg.Definitions(
        assets=[
            RELEASE_HISTORY,
            *kept_fresh(
                checked_assets(
                    [
                        snapshots,
                        features,
                        online_features,
                        changed_features,
                        embeddings,
                        candidate_index,
                        ranking_dataset,
                        ranker,
                        evaluation,
                        release_candidate_asset(policy),
                        promoted_release,
                        drift,
                        experiment_report,
                        hyperparameter_search,
                        daily_activity_asset(begins),
                        daily_totals,
                    ]
                )
            ),
        ],
        asset_checks=[production_is_coherent],
        jobs=[*JOBS, READ_OUT, judge_job(policy)],
        schedules=[*SCHEDULES],
        sensors=[*SENSORS, guard, observe_stages],
        resources={"platform": platform or PlatformResource(), "io_manager": result_io_manager},
        executor=in_process_or_multiprocess,
    )


defs = build_definitions()
