"""A run that failed reaches the people on call: the log always, the webhook where one is set."""

import io
import json

import dagster as dg
import pytest
from pydantic import SecretStr

from infra.endpoints import Endpoints
from pipelines.errors import EmptySnapshot
from pipelines.resources import Platform
from pipelines.upkeep.sensors import alert_on_failure, first_sentence
from tests.webhook import listening


@dg.op
def learn() -> None:
    """Fail as a step of ours does."""
    raise EmptySnapshot("there are no interactions to learn from; run `duet import` first. See the log.")


@dg.job
def training() -> None:
    """Have one step that fails."""
    learn()


def test_a_failed_run_is_logged_and_posted_with_its_step_and_reason(
    platform: Platform, instance: dg.DagsterInstance, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    result = training.execute_in_process(instance=instance, raise_on_error=False, tags={"dagster/schedule_name": "n"})
    (failed,) = result.filter_events(lambda event: event.event_type is dg.DagsterEventType.RUN_FAILURE)
    stream = io.StringIO()
    with listening(200) as webhook:
        alerts = platform.settings.alerts.model_copy(update={"webhook_url": SecretStr(webhook.url)})
        dagster = platform.settings.dagster.model_copy(update={"port": 3000})
        shown = platform.settings.logging.model_copy(update={"format": "json"})
        settings = platform.settings.model_copy(update={"alerts": alerts, "dagster": dagster, "logging": shown})
        monkeypatch.setattr("sys.stderr", stream)
        context = dg.build_run_status_sensor_context(
            sensor_name="alert_on_failure",
            dagster_event=failed,
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            resources={"platform": Platform(settings, endpoints)},
        ).for_run_failure()
        alert_on_failure(context)
    (received,) = webhook.received
    reason = "there are no interactions to learn from; run `duet import` first."
    assert received["kind"] == "run_failed"
    assert received["summary"] == f"the step `learn` of `training` failed: {reason}"
    assert received["details"] == {
        "run_id": result.run_id,
        "job": "training",
        "step": "learn",
        "error": reason,
        "schedule": "n",
        "link": f"http://127.0.0.1:3000/runs/{result.run_id}",
    }
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["details"]["run_id"] for line in lines if line["event"] == "alert"] == [result.run_id]


def test_values_of_rows_do_not_leave_with_an_error() -> None:
    told = 'duplicate key value violates unique constraint "users_pkey"\nDETAIL:  Key (user_id)=(7) already exists.'
    assert first_sentence(told) == 'duplicate key value violates unique constraint "users_pkey"'
