import os

import pytest

from infra.telemetry import TELEMETRY_OFF, disable_telemetry


def test_every_library_is_told_to_report_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    disable_telemetry()
    assert {name: os.environ[name] for name in TELEMETRY_OFF} == TELEMETRY_OFF


def test_mlflow_sees_its_switch() -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
