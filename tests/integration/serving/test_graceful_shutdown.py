"""A service that is stopped under load answers every request that it accepted, on old connections and on new ones."""

import signal
import socket
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.endpoints import Endpoints
from tests.serving_process import ServingProcess, serving_process
from tests.serving_world import insert_people
from tests.stopping_load import ENOUGH, REQUEST, read_answer, stopped_under_load


def stop(served: ServingProcess) -> None:
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(30)


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.long), "2"])
def test_every_accepted_request_is_answered_when_the_service_is_stopped(
    endpoints: Endpoints, connection: psycopg.Connection[Any], tmp_path: Path, workers: str
) -> None:
    insert_people(connection, 40)
    with serving_process(endpoints, tmp_path, SERVING__WORKERS=workers, SERVING__DRAIN_S="0.5") as served:
        outcomes = stopped_under_load(served.port, lambda: stop(served))
        assert served.process.returncode == 0, served.log.read_text()
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > ENOUGH
    # What was shown is written before the process ends.
    shown = connection.execute("select count(distinct request_id) from duet.impressions").fetchone()
    assert shown == (outcomes["200"],)


def test_probes_say_not_ready_while_calls_are_still_answered(
    endpoints: Endpoints, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    insert_people(connection, 40)
    with serving_process(endpoints, tmp_path, SERVING__DRAIN_S="2") as served:
        probe = REQUEST.replace(b"POST /v1/recommendations", b"GET /health/ready")
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as idle:
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            idle.sendall(probe)
            answer = read_answer(idle)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"connection: close" in answer.lower()
            assert b"The service is being stopped." in answer
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as fresh:
            fresh.sendall(REQUEST)
            assert read_answer(fresh).startswith(b"HTTP/1.1 200")
        assert served.process.wait(30) == 0
