from base64 import b64encode
from pathlib import Path

import pytest

from infra.endpoints import Endpoints
from infra.settings import Settings, load_settings
from infra.variables import variables
from serving.snapshots.build_process import _told

SECRET = "https://planted-secret.example.com"
SIGNING = "whsec_" + b64encode(b"planted in the settings of a test").decode()
SERVERS = Endpoints("postgresql://duet:word@db:5432/duet", "redis://:word@redis:6379/0")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    monkeypatch.setenv("DUET_ENVIRONMENT", "production")
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path))
    secrets = [variable.name for variable in variables(Settings) if variable.is_secret]
    assert "DUET_WEB__TOKEN" in secrets
    shapes = {"DUET_WEBHOOKS__SECRET": SIGNING, "DUET_STREAM__URL": "redis://planted-secret"}
    for name in secrets:
        monkeypatch.setenv(name, shapes.get(name, SECRET))
    return _told(load_settings(), SERVERS)


def test_the_process_that_writes_the_snapshot_understands_its_settings_whatever_is_secret_in_them(told: bytes) -> None:
    understood = Settings.model_validate_json(told)
    assert understood.environment == "production"
    assert understood.database_url is not None
    assert understood.database_url.get_secret_value() == SERVERS.database_url


def test_it_is_told_no_secret_but_the_two_urls_it_needs(told: bytes) -> None:
    assert b"planted-secret" not in told
    assert SIGNING.encode() not in told
    assert b"***" not in told
