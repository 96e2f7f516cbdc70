import io
import json
import logging

import pytest
import structlog
from pydantic import SecretStr

from infra.logging import configure_logging, redact_text
from infra.settings import Settings

PLANTED = "hunter2-planted"


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(Settings(logging={"format": request.param}), stream)
    return stream


@pytest.mark.parametrize(
    "fields",
    [
        {"password": PLANTED},
        {"db_password": PLANTED},
        {"api_key": PLANTED},
        {"token": 12345678901},
        {"headers": {"Authorization": PLANTED}},
        {"nested": [{"credentials": PLANTED}]},
        {"url": f"postgresql://duet:{PLANTED}@db/duet"},
        {"url": f"redis://:{PLANTED}@cache:6379/0"},
        {"text": f"connection string has password={PLANTED} host=x"},
        {"text": f"sent Bearer {PLANTED}"},
        {"value": SecretStr(PLANTED)},
        {"error": ValueError(f"mlflow+http://u:{PLANTED}@h")},
    ],
)
def test_a_planted_secret_never_reaches_the_output(log: io.StringIO, fields: dict[str, object]) -> None:
    structlog.get_logger("duet").info("something happened", **fields)
    assert "something happened" in log.getvalue()
    assert PLANTED not in log.getvalue()
    assert "12345678901" not in log.getvalue()
    assert "***" in log.getvalue()


def test_a_secret_in_the_message_or_the_traceback_is_masked(log: io.StringIO) -> None:
    try:
        int(f"postgresql://duet:{PLANTED}@db/duet")
    except ValueError:
        structlog.get_logger("duet").exception(f"failed for redis://:{PLANTED}@h/0")
    assert "ValueError" in log.getvalue()
    assert PLANTED not in log.getvalue()


def test_the_standard_library_is_routed_through_redaction(log: io.StringIO) -> None:
    logging.getLogger("some.library").warning("dsn is %s", f"postgresql://duet:{PLANTED}@db/duet")
    assert "dsn is postgresql://duet:***@db/duet" in log.getvalue()


def test_innocent_fields_stay_readable(log: io.StringIO) -> None:
    structlog.get_logger("duet").info("done", n_tokens=3, secretary="Ann", url="http://127.0.0.1:8000/x")
    for text in ("Ann", "http://127.0.0.1:8000/x"):
        assert text in log.getvalue()
    assert "***" not in log.getvalue()


def test_a_bound_request_id_is_in_every_line() -> None:
    stream = io.StringIO()
    configure_logging(Settings(environment="production"), stream)
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("duet").info("one")
        logging.getLogger("library").info("two")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["request_id"]) for line in lines] == [("one", "r-1"), ("two", "r-1")]


def test_levels_below_the_setting_are_not_written() -> None:
    stream = io.StringIO()
    configure_logging(Settings(logging={"level": "WARNING"}), stream)
    structlog.get_logger("duet").info("quiet")
    logging.getLogger("library").info("quiet")
    assert stream.getvalue() == ""


def test_several_secrets_in_one_text_are_all_masked() -> None:
    text = redact_text(f"a://u:{PLANTED}@h and b://u:{PLANTED}@h, password: {PLANTED}")
    assert PLANTED not in text


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["x", "a://", "token", "Bearer x ", "duet_", "password ", "-", "user@host "])
def test_a_long_text_is_masked_in_time_that_grows_with_its_length(text: str) -> None:
    long = text * (1_000_000 // len(text))
    masked = redact_text(f"{long} postgresql://duet:{PLANTED}@db/duet")
    assert masked == f"{long} postgresql://duet:***@db/duet"
