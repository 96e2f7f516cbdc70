"""A service that is stopped under load answers every request that it accepted, on old connections and on new ones."""

import signal
import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.endpoints import Endpoints
from tests.serving_process import ServingProcess, serving_process
from tests.serving_world import insert_people
from tests.stopping_load import ENOUGH, REQUEST, read_answer, stopped_under_load
from tests.waiting import until


def stop(served: ServingProcess) -> None:
    """End the service, and see its probe say so while calls are still answered."""
    served.process.send_signal(signal.SIGTERM)
    until(lambda: probe(served.port).startswith(b"HTTP/1.1 503"))
    refused = probe(served.port)
    assert b"connection: close" in refused.lower()
    assert b"The service is being stopped." in refused
    served.process.wait(120)


def probe(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as asking:
        asking.sendall(REQUEST.replace(b"POST /v1/recommendations", b"GET /health/ready"))
        return read_answer(asking)


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.long), "2"])
def test_every_accepted_request_is_answered_while_the_service_is_stopped_and_its_probe_says_so(
    endpoints: Endpoints, connection: psycopg.Connection[Any], tmp_path: Path, workers: str
) -> None:
    insert_people(connection, 40)
    with serving_process(endpoints, tmp_path, SERVING__WORKERS=workers, SERVING__DRAIN_S="8") as served:
        outcomes = stopped_under_load(served.port, lambda: stop(served))
        assert served.process.returncode == 0, served.log.read_text()
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > ENOUGH
    # What was shown is written before the process ends.
    shown = connection.execute("select count(distinct request_id) from duet.impressions").fetchone()
    assert shown == (outcomes["200"],)
