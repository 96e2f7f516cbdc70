import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.alerts import send_alert
from infra.errors import ConfigurationError
from infra.logging import configure_logging
from infra.settings import Settings, load_settings
from tests.conftest import make_settings
from tests.webhook import listening

PLANTED = "hunter2-of-the-test"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is logged, as JSON lines; a proxy of the machine is not asked for a local address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    stream = io.StringIO()
    configure_logging(make_settings(tmp_path, logging={"format": "json"}), stream)
    return stream


def told(tmp_path: Path, url: str | None, timeout_s: float = 5.0) -> Settings:
    alerts = {"webhook_url": SecretStr(url) if url else None, "timeout_s": timeout_s}
    return make_settings(tmp_path, alerts=alerts)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_an_alert_is_one_line_of_the_log_where_no_webhook_is_set(tmp_path: Path, log: io.StringIO) -> None:
    send_alert(told(tmp_path, None), "run_failed", "The step `ranker` failed.", {"run_id": "r1"})
    (line,) = lines(log)
    assert line["event"] == "alert"
    assert line["kind"] == "run_failed"
    assert line["summary"] == "The step `ranker` failed."
    assert line["details"] == {"run_id": "r1"}
    assert line["level"] == "warning"


def test_a_webhook_receives_the_alert_as_json_with_secrets_masked(tmp_path: Path, log: io.StringIO) -> None:
    details = {"url": f"postgresql://duet:{PLANTED}@db/duet", "api_key": PLANTED, "attempts": 2}
    with listening(200, PLANTED) as webhook:
        send_alert(told(tmp_path, webhook.url), "guard", f"It failed with password={PLANTED}.", details)
    assert webhook.received == [
        {
            "kind": "guard",
            "environment": "test",
            "summary": "It failed with password=***",
            "details": {"url": "postgresql://duet:***@db/duet", "api_key": "***", "attempts": 2},
            "text": "Duet guard: It failed with password=***",
        }
    ]
    assert len(lines(log)) == 1
    assert PLANTED not in log.getvalue()


@pytest.mark.parametrize(("status", "reason"), [(500, "the webhook answered 500"), (None, "ReadTimeout")])
def test_a_failing_webhook_is_logged_and_never_raised(
    tmp_path: Path, log: io.StringIO, status: int | None, reason: str
) -> None:
    with listening(status, PLANTED) as webhook:
        send_alert(told(tmp_path, webhook.url, timeout_s=30 if status else 0.3), "run_failed", "It failed.")
    first, second = lines(log)
    assert first["event"] == "alert"
    assert second["event"] == "alert not delivered"
    assert second["reason"] == reason
    assert PLANTED not in log.getvalue()


@pytest.mark.parametrize("url", [f"http://127.0.0.1:1/{PLANTED}", f"http://[::1:80/{PLANTED}"])
def test_a_webhook_that_is_not_there_is_logged_without_its_url(tmp_path: Path, log: io.StringIO, url: str) -> None:
    send_alert(told(tmp_path, url), "run_failed", "It failed.")
    assert [line["event"] for line in lines(log)] == ["alert", "alert not delivered"]
    assert PLANTED not in log.getvalue()


def test_details_too_long_for_a_webhook_stay_in_the_log(tmp_path: Path, log: io.StringIO) -> None:
    with listening(204) as webhook:
        send_alert(told(tmp_path, webhook.url), "run_failed", "It failed.", {"story": "x" * 40_000})
    assert list(webhook.received[0]["details"]) == ["left_out"]
    assert webhook.received[0]["summary"] == "It failed."
    assert len(lines(log)[0]["details"]["story"]) == 40_000


def test_a_webhook_url_of_another_kind_is_refused_without_being_shown() -> None:
    with pytest.raises(
        ConfigurationError, match=r"`DUET_ALERTS__WEBHOOK_URL` is a secret.*https://host/path"
    ) as refused:
        load_settings(alerts={"webhook_url": f"ftp://{PLANTED}"})
    assert PLANTED not in str(refused.value)
