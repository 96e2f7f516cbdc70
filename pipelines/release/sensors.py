"""The observer of MLflow's stages on Dagster's clock, and what it found.

MLflow keeps no history of stages and tells nobody when one is moved, so this looks every ten seconds, on by default. It
misses nothing that lasted longer, also over a restart: it compares with the audit, not with what it saw last.
"""

import json
from typing import TYPE_CHECKING, Final

import dagster as dg

from infra.alerts import send_alert
from infra.logging import configure_logging
from pipelines.presentation import table
from pipelines.release.assets import HISTORY
from pipelines.release.checks import CHECK, metadata_of, sentence_of, standing_now
from pipelines.resources import Platform

if TYPE_CHECKING:
    from pipelines.release.history import ReleaseStanding

INTERVAL_S: Final = 10


@dg.sensor(
    name="observe_stages",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records stages moved by hand in MLflow, tells MLflow of rollbacks it missed, alerts on refusals.",
)
def observe_stages(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
    """Look once; the history and the check are reported when something has changed."""
    configure_logging(platform.settings)  # each time: no code of Duet starts a code server, and Dagster's own undoes it
    found = standing_now(platform)
    for entry in found.added:
        context.log.info("recorded by hand: %s to %s", entry.versions.release_id, entry.stage)
    seen = json.dumps([found.rows[:1], found.refusal, found.pinned], sort_keys=True)
    if seen == context.cursor:
        return dg.SensorResult(skip_reason="nothing has changed")
    known = None if context.cursor is None else json.loads(context.cursor)[1]
    if found.refusal is not None and found.refusal != known:
        send_alert(
            platform.settings,
            "release_refused",
            f"the newest release in Production does not serve: {found.refusal}",
            {"workers": {worker.name: worker.release for worker in found.workers}},
        )
    return dg.SensorResult(asset_events=[_materialization(found), _evaluation(found)], cursor=seen)


def _materialization(found: "ReleaseStanding") -> dg.AssetMaterialization:
    return dg.AssetMaterialization(HISTORY, metadata={"history": table(found.rows), **metadata_of(found)})


def _evaluation(found: "ReleaseStanding") -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=HISTORY,
        check_name=CHECK,
        passed=found.refusal is None,
        description=sentence_of(found),
        metadata=metadata_of(found),
    )
